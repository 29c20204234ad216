"""Every knob of DeepCluster; the shipped experiments are in configs/."""

import math
from dataclasses import dataclass, field
from typing import Literal

from common import require

Mode = Literal["auto", "v1", "v2", "frozen"]
Clustering = Literal["kmeans", "pic"]
Sampler = Literal["uniform", "natural", "released"]
Optimizer = Literal["sgd", "adam"]
Schedule = Literal["constant", "step", "plateau", "cosine"]


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"  # a name in data/sources.yml, or "folder" with `path`
    path: str | None = None  # folder of images, flat or nested
    split: str = ""  # "train", "test", ...; empty: the whole set
    test_split: str = ""  # the set's own held-out images, in the place of held_out
    held_out: float = 0.0  # share of the images that is never trained on, for the evaluation
    root: str | None = None  # where data lies; default: DATA_ROOT, else data/
    size: int | None = None  # pixels, square, of the cached images; the network may see crops
    n_images: int | None = None  # a fixed random subset
    max_bad: float = 0.01  # largest share of unreadable files that is skipped, not refused

    def __post_init__(self) -> None:
        _at_least(1, "dataset", self, "size", "n_images")
        require(0 <= self.held_out < 1, "dataset.held_out", self.held_out, "a share below 1")


@dataclass(frozen=True)
class Model:
    # v1: the paper; v2: memory bank and centroids as weights; frozen: a given trunk, features once;
    # auto: frozen for a given trunk and few images, else v2, from 100,000 images on v1
    mode: Mode = "auto"
    # alexnet, vgg11, vgg16, resnet18, resnet50, resnet (of any width), or a name in timm
    arch: str = "resnet"
    width: int = 64  # resnet: channels of its first stage
    n_blocks: int = 2  # resnet: of each stage
    # resnets: of the image before the first stage, 0 to 2; default: as many as its size bears
    n_halvings: int | None = None
    n_hidden: int = 4096  # alexnet, vgg: of two fully connected layers; 0: the mean over places
    sobel: bool = False  # edges in two directions in the place of colours, as in the paper
    input_size: int | None = None  # pixels, square, that the network sees; default: the images' own
    centre: float = 1.0  # share of each side that is seen without chance; paper: 0.875
    weights: str | None = None  # a .safetensors or .pth file that the trunk starts from
    pretrained: bool = False  # the trunk starts from the weights that timm has under this name
    n_clusters: int = 10  # v1: pseudo-labels, v2: only read out at the end; PIC finds its own
    n_groups: int | None = None  # the clusters are merged into so many at the end
    clustering: Clustering = "kmeans"  # v1 and frozen
    pca_dim: int | None = 256  # of the features before they are clustered; null: as they are
    eigen_power: float = -0.5  # -0.5 whitens, 0 only rotates
    n_neighbors: int = 5  # pic: edges of a node
    sigma: float = 0.2  # pic: width of the kernel
    heads: tuple[int, ...] = ()  # v2: prototypes of each; empty: three times 10 n_clusters
    projection: int = 512  # v2: hidden units between the features and the embedding
    embedding: int = 128  # v2: dimensions of what the memory bank holds
    temperature: float = 0.1  # v2
    readout: Literal["features", "embedding"] = "features"  # v2: what is clustered at the end

    def __post_init__(self) -> None:
        _at_least(1, "model", self, "n_clusters", "n_groups", "width", "input_size", "pca_dim")
        _at_least(1, "model", self, "n_neighbors", "n_blocks", "projection", "embedding")
        _at_least(0, "model", self, "n_hidden", "n_halvings")
        require(
            self.n_halvings in (None, 0, 1, 2), "model.n_halvings", self.n_halvings, "0, 1 or 2"
        )
        require(0 < self.centre <= 1, "model.centre", self.centre, "a share, 1 or less")
        require(self.temperature > 0, "model.temperature", self.temperature, "more than 0")
        require(self.sigma > 0, "model.sigma", self.sigma, "more than 0")
        require(min(self.heads, default=2) >= 2, "model.heads", self.heads, "2 or more each")
        require(
            self.n_groups is None or self.n_groups <= self.n_clusters,
            "model.n_groups",
            self.n_groups,
            "no more than model.n_clusters",
        )
        require(
            not (self.weights and self.pretrained),
            "model.pretrained", self.pretrained, "false beside model.weights",
        )  # fmt: skip


@dataclass(frozen=True)
class Training:
    seed: int = 0
    lr: float = 0.05  # of the trunk, and of the projection in v2
    batch_size: int = 256
    n_epochs: int = 200
    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-5
    head_optimizer: Optimizer = "sgd"  # v1: of the classifier
    head_lr: float | None = None  # v1; default: lr
    head_momentum: float = 0.0  # v1
    schedule: Schedule = "constant"
    warmup: float = 0.0  # share of the training in which the rate rises
    final_lr: float = 0.001  # cosine: the last rate as a share of the first
    step_size: int = 30  # step: epochs after which the rate is multiplied by `gamma`
    gamma: float = 0.1  # step and plateau
    patience: int = 10  # plateau: epochs without a lower loss after which the rate falls
    sampler: Sampler = "uniform"  # v1: over clusters; released: what the authors' code does
    reassign: float = 1.0  # v1: images drawn in an epoch, as a share of all
    recluster_every: int = 1  # epochs between two clusterings
    # v1: clusters the features that the last epoch's crops had, in the place of a pass of its own
    one_pass: bool = False
    warm_start: bool = False  # v1: k-means goes on from the last centroids and the head is kept
    kmeans_iterations: int = 20  # but for the last one, which goes on until nothing moves
    n_init: int = 1  # restarts of the last k-means; the lowest objective is kept
    crop_scale: tuple[float, float] = (0.08, 1.0)  # area of a crop as a share of the image
    flip: bool = True  # half of the crops are mirrored
    jitter: float = 0.0  # strength of changes of brightness, contrast, saturation and hue
    gray: float = 0.0  # share of the crops that lose their colours
    blur: float = 0.0  # share of the crops that are blurred
    n_crops: int = 2  # v2: crops of an image in a step, each in the memory bank
    n_small_crops: int = 0  # v2: crops that are trained on only
    small_crop_scale: tuple[float, float] = (0.05, 0.3)
    small_size: int | None = None  # pixels of the small crops; default: half of input_size
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: what is fast here
    visdom_port: int | None = None  # mirror the curves to a visdom server on this machine

    def __post_init__(self) -> None:
        for name in ("lr", "head_lr"):
            rate = getattr(self, name)
            require(
                rate is None or (rate > 0 and math.isfinite(rate)),
                f"training.{name}", rate, "a number above 0",
            )  # fmt: skip
        # batch norm cannot learn from one image
        _at_least(2, "training", self, "batch_size")
        _at_least(1, "training", self, "n_epochs", "step_size", "patience", "recluster_every")
        _at_least(1, "training", self, "kmeans_iterations", "n_init", "n_crops", "small_size")
        _at_least(0, "training", self, "n_small_crops", "weight_decay", "jitter")
        require(self.reassign > 0, "training.reassign", self.reassign, "more than 0")
        for name in ("momentum", "head_momentum", "warmup"):
            value = getattr(self, name)
            require(0 <= value < 1, f"training.{name}", value, "0 or more, below 1")
        for name in ("gray", "blur", "final_lr", "gamma"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"training.{name}", value, "between 0 and 1")
        for name in ("crop_scale", "small_crop_scale"):
            low, high = getattr(self, name)
            require(0 < low <= high <= 1, f"training.{name}", (low, high), "two rising shares")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)


def _at_least(least: int, section: str, values: object, *names: str) -> None:
    for name in names:
        value = getattr(values, name)
        require(value is None or value >= least, f"{section}.{name}", value, f"{least} or more")
