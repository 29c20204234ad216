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
    name: str = "digits"
    """A name in data/sources.yml, or "folder" with `path`."""
    path: str | None = None
    """Folder of images, flat or nested."""
    split: str = ""
    """"train", "test", ...; empty: the whole set."""
    test_split: str = ""
    """The set's own held-out images, in the place of held_out."""
    held_out: float = 0.0
    """Share of the images that is never trained on, for the evaluation."""
    root: str | None = None
    """Where data lies; default: DATA_ROOT, else data/."""
    size: int | None = None
    """Pixels, square, of the cached images; the network may see crops."""
    n_images: int | None = None
    """A fixed random subset."""
    max_bad: float = 0.01
    """Largest share of unreadable files that is skipped, not refused."""

    def __post_init__(self) -> None:
        _at_least(1, "dataset", self, "size", "n_images")
        require(0 <= self.held_out < 1, "dataset.held_out", self.held_out, "a share below 1")


@dataclass(frozen=True)
class Model:
    mode: Mode = "auto"
    """V1: the paper; v2: memory bank and centroids as weights; frozen: a given trunk, features
    once; auto: frozen for a given trunk and few images, else v2, from 100,000 images on v1."""
    arch: str = "resnet"
    """Alexnet, vgg11, vgg16, resnet18, resnet50, resnet (of any width), or a name in timm."""
    width: int = 64
    """Resnet: channels of its first stage."""
    n_blocks: int = 2
    """Resnet: of each stage."""
    n_halvings: int | None = None
    """Resnets: of the image before the first stage, 0 to 2; default: as many as its size bears."""
    n_hidden: int = 4096
    """Alexnet, vgg: of two fully connected layers; 0: the mean over places."""
    sobel: bool = False
    """Edges in two directions in the place of colours, as in the paper."""
    input_size: int | None = None
    """Pixels, square, that the network sees; default: the images' own."""
    centre: float = 1.0
    """Share of each side that is seen without chance; paper: 0.875."""
    weights: str | None = None
    """A .safetensors or .pth file that the trunk starts from."""
    pretrained: bool = False
    """The trunk starts from the weights that timm has under this name."""
    n_clusters: int = 10
    """V1: pseudo-labels, v2: only read out at the end; PIC finds its own."""
    n_groups: int | None = None
    """The clusters are merged into so many at the end."""
    clustering: Clustering = "kmeans"
    """V1 and frozen."""
    pca_dim: int | None = 256
    """Of the features before they are clustered; null: as they are."""
    eigen_power: float = -0.5
    """-0.5 whitens, 0 only rotates."""
    n_neighbors: int = 5
    """Pic: edges of a node."""
    sigma: float = 0.2
    """Pic: width of the kernel."""
    heads: tuple[int, ...] = ()
    """V2: prototypes of each; empty: three times 10 n_clusters."""
    projection: int = 512
    """V2: hidden units between the features and the embedding."""
    embedding: int = 128
    """V2: dimensions of what the memory bank holds."""
    temperature: float = 0.1
    """V2."""
    readout: Literal["features", "embedding"] = "features"
    """V2: what is clustered at the end."""

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
    """"""
    lr: float = 0.05
    """Of the trunk, and of the projection in v2."""
    batch_size: int = 256
    """"""
    n_epochs: int = 200
    """"""
    optimizer: Optimizer = "sgd"
    """"""
    momentum: float = 0.9
    """"""
    weight_decay: float = 1e-5
    """"""
    head_optimizer: Optimizer = "sgd"
    """V1: of the classifier."""
    head_lr: float | None = None
    """V1; default: lr."""
    head_momentum: float = 0.0
    """V1."""
    schedule: Schedule = "constant"
    """"""
    warmup: float = 0.0
    """Share of the training in which the rate rises."""
    final_lr: float = 0.001
    """Cosine: the last rate as a share of the first."""
    step_size: int = 30
    """Step: epochs after which the rate is multiplied by `gamma`."""
    gamma: float = 0.1
    """Step and plateau."""
    patience: int = 10
    """Plateau: epochs without a lower loss after which the rate falls."""
    sampler: Sampler = "uniform"
    """V1: over clusters; released: what the authors' code does."""
    reassign: float = 1.0
    """V1: images drawn in an epoch, as a share of all."""
    recluster_every: int = 1
    """Epochs between two clusterings."""
    one_pass: bool = False
    """V1: clusters the features that the last epoch's crops had, in the place of a pass of its
    own."""
    warm_start: bool = False
    """V1: k-means goes on from the last centroids and the head is kept."""
    kmeans_iterations: int = 20
    """But for the last one, which goes on until nothing moves."""
    n_init: int = 1
    """Restarts of the last k-means; the lowest objective is kept."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Area of a crop as a share of the image."""
    flip: bool = True
    """Half of the crops are mirrored."""
    jitter: float = 0.0
    """Strength of changes of brightness, contrast, saturation and hue."""
    gray: float = 0.0
    """Share of the crops that lose their colours."""
    blur: float = 0.0
    """Share of the crops that are blurred."""
    n_crops: int = 2
    """V2: crops of an image in a step, each in the memory bank."""
    n_small_crops: int = 0
    """V2: crops that are trained on only."""
    small_crop_scale: tuple[float, float] = (0.05, 0.3)
    """"""
    small_size: int | None = None
    """Pixels of the small crops; default: half of input_size."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Auto: what is fast here."""
    visdom_port: int | None = None
    """Mirror the curves to a visdom server on this machine."""

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
