"""All options of DeepCluster; the shipped experiments are in configs/."""

from dataclasses import dataclass, field
from typing import Literal

from common import checks, require

Mode = Literal["auto", "v1", "v2", "frozen"]
Clustering = Literal["kmeans", "pic"]
Sampler = Literal["uniform", "natural", "released"]
Optimizer = Literal["sgd", "adam", "larc"]
Schedule = Literal["constant", "step", "plateau", "cosine"]


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"
    """A dataset of data/sources.yml, or `folder` with dataset.path."""
    path: str | None = None
    """Folder of images, flat or nested; null: the dataset is found by its name."""
    split: str = ""
    """Split to train on, such as train or test; empty: all images."""
    test_split: str = ""
    """Split to evaluate on, used instead of dataset.held_out; empty: none."""
    held_out: float = 0.0
    """Fraction of the images kept out of training for the evaluation."""
    root: str | None = None
    """Folder of the datasets; null: the environment variable DATA_ROOT, else data/."""
    size: int | None = None
    """Side in pixels of the square that images are resized and cropped to; null: as they are."""
    n_images: int | None = None
    """Size of a fixed random subset to use; null: all images."""
    max_bad: float = 0.01
    """Fraction of unreadable files up to which they are skipped; with more, training is refused."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "size", "n_images")
        checks.below_one(self, "held_out")


@dataclass(frozen=True)
class Model:
    mode: Mode = "auto"
    """v1: the paper; v2: memory bank and centroids as classifier; frozen: features of a pretrained
    trunk; auto: frozen with pretrained weights and few images, else v2, and v1 from 100,000
    images."""
    arch: str = "resnet"
    """Trunk: alexnet, vgg11, vgg16, resnet18, resnet50, resnet (with model.width and
    model.n_blocks), or the name of a timm model. Paper: alexnet and vgg16."""
    width: int = 64
    """Channels of the first stage, for arch resnet."""
    n_blocks: int = 2
    """Residual blocks per stage, for arch resnet."""
    stem_stride: int | None = None
    """Downsampling before the first stage of a ResNet: 1, 2 or 4; null: chosen from the image
    size."""
    n_hidden: int = 4096
    """Units of each of the two fully connected layers of alexnet and vgg; 0: global average
    pooling instead."""
    sobel: bool = False
    """Feed the network Sobel gradients instead of colors, as in the paper."""
    input_size: int | None = None
    """Side in pixels of the square that the network sees; null: the shorter side of the images.
    Paper: 224."""
    center_crop: float = 1.0
    """Fraction of each side that is kept at evaluation. Paper: 0.875."""
    weights: str | None = None
    """A .safetensors or .pth file of weights to initialize the trunk with; null: none."""
    pretrained: bool = False
    """Initialize the trunk with the weights that timm has for model.arch."""
    n_clusters: int = 10
    """Clusters of k-means: in v1 also of the pseudo-labels; PIC finds their number itself. Paper:
    10,000."""
    n_groups: int | None = None
    """Groups that the final clusters are merged into (Ward); null: no merging."""
    clustering: Clustering = "kmeans"
    """Clustering algorithm of v1 and frozen: k-means or power iteration clustering."""
    pca_dim: int | None = 256
    """PCA dimensions before clustering; null: no PCA. Paper: 256."""
    eigen_power: float = -0.5
    """Exponent of the PCA variances as scale of the axes: -0.5 whitens, 0 only rotates."""
    n_neighbors: int = 5
    """PIC: neighbors per point in the graph. Paper's code: 5."""
    sigma: float = 0.2
    """PIC: width of the Gaussian kernel, as a distance between normalized features. Paper's code:
    0.2."""
    heads: tuple[int, ...] = ()
    """v2: prototypes of each head; empty: three heads of 10 * n_clusters, fewer with few images."""
    projection: int = 512
    """v2: hidden units of the projection from features to embeddings."""
    embedding: int = 128
    """v2: dimensions of the embeddings in the memory bank."""
    temperature: float = 0.1
    """v2: temperature of the softmax over cosine similarities."""
    cluster_on: Literal["features", "embedding"] = "features"
    """v2: what is clustered at the end: the features of the trunk or their projection."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "n_clusters", "n_groups", "width", "input_size", "pca_dim")
        checks.at_least(self, 1, "n_neighbors", "n_blocks", "projection", "embedding")
        checks.at_least(self, 0, "n_hidden")
        strides = (None, 1, 2, 4)
        require(self.stem_stride in strides, "model.stem_stride", self.stem_stride, "1, 2 or 4")
        center_crop = self.center_crop
        require(0 < center_crop <= 1, "model.center_crop", center_crop, "a fraction, 1 or less")
        checks.positive(self, "temperature", "sigma")
        require(min(self.heads, default=2) >= 2, "model.heads", self.heads, "2 or more each")
        require(
            self.n_groups is None or self.n_groups <= self.n_clusters,
            "model.n_groups", self.n_groups, "no more than model.n_clusters",
        )  # fmt: skip
        require(
            not (self.weights and self.pretrained),
            "model.pretrained", self.pretrained, "false with model.weights",
        )  # fmt: skip


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """Random seed. Paper's code: 31."""
    lr: float = 0.05
    """Learning rate of the trunk, and in v2 of the projection. Paper: 0.05."""
    batch_size: int = 256
    """Images per step. Paper: 256."""
    n_epochs: int = 200
    """Epochs of training. Paper: 500."""
    optimizer: Optimizer = "sgd"
    """Optimizer of the trunk, and in v2 of the projection; larc: sgd with a rate for each layer.
    Paper: sgd; v2: larc."""
    momentum: float = 0.9
    """Momentum of sgd and larc. Paper: 0.9."""
    weight_decay: float = 1e-5
    """Weight decay of all layers. Paper: 1e-5."""
    head_optimizer: Optimizer = "sgd"
    """v1: optimizer of the classification head."""
    head_lr: float | None = None
    """v1: learning rate of the classification head; null: training.lr."""
    head_momentum: float = 0.0
    """v1: momentum of the head's sgd or larc."""
    schedule: Schedule = "constant"
    """Learning rate schedule."""
    warmup: float = 0.0
    """Fraction of the training in which the learning rate rises linearly."""
    warmup_start: float = 0.01
    """First learning rate of the warmup, as a fraction of training.lr. v2's authors: 0.0625."""
    final_lr: float = 0.001
    """Schedule cosine: the last learning rate as a fraction of the first."""
    step_size: int = 30
    """Schedule step: epochs after which the learning rate is multiplied by training.gamma."""
    gamma: float = 0.1
    """Schedules step and plateau: factor of each drop of the learning rate."""
    patience: int = 10
    """Schedule plateau: epochs without a lower loss after which the learning rate drops."""
    sampler: Sampler = "uniform"
    """v1: uniform over clusters (the paper), natural: every image once, released: what the
    authors' code draws."""
    reassign: float = 1.0
    """v1: images per epoch, as a fraction of all images."""
    recluster_every: int = 1
    """Epochs between clusterings. Paper: 1."""
    one_pass: bool = False
    """v1: cluster the features that the last epoch computed for its crops, instead of a separate
    pass over all images."""
    warm_start: bool = False
    """Start k-means from the previous clusters; in v1 also keep the head."""
    kmeans_iterations: int = 20
    """Iterations of k-means; the final clustering runs until it converges. Paper's code: 20."""
    n_init: int = 1
    """Runs of the final k-means, of which the one with the lowest objective is kept."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of a random crop, as fractions of the image."""
    flip: bool = True
    """Mirror half of the crops."""
    jitter: float = 0.0
    """Strength of random brightness, contrast, saturation and hue; 0: none, 1: as in SimCLR and by
    v2's authors."""
    gray: float = 0.0
    """Fraction of the crops that are converted to gray."""
    blur: float = 0.0
    """Fraction of the crops that are blurred, with a sigma of 0.1 to 2 pixels if large crops have
    224. v2's authors: 0.5."""
    n_crops: int = 2
    """v2: large crops per image and step, each with an embedding in the memory bank."""
    n_small_crops: int = 0
    """v2: additional small crops per image and step, not in the memory bank."""
    small_crop_scale: tuple[float, float] = (0.05, 0.3)
    """v2: smallest and largest area of a small crop, as fractions of the image."""
    small_size: int | None = None
    """v2: side of the small crops in pixels; null: half of model.input_size."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating-point type of the network; auto: bfloat16 if the hardware supports it."""
    visdom_port: int | None = None
    """Port of a visdom server on this machine to show the curves on; null: none."""

    def __post_init__(self) -> None:
        checks.positive(self, "lr", "head_lr", "reassign")
        checks.at_least(self, 2, "batch_size")  # batch norm cannot learn from one image
        checks.at_least(self, 1, "n_epochs", "step_size", "patience", "recluster_every")
        checks.at_least(self, 1, "kmeans_iterations", "n_init", "n_crops", "small_size")
        checks.at_least(self, 0, "n_small_crops", "weight_decay", "jitter")
        checks.below_one(self, "momentum", "head_momentum", "warmup")
        checks.fraction(self, "gray", "blur", "warmup_start", "final_lr", "gamma")
        checks.rising(self, 1, "crop_scale", "small_crop_scale")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
