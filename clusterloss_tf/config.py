"""Options of facility location metric learning; the experiments are in configs/."""

from dataclasses import dataclass, field
from typing import Literal

from common import checks, require

Loss = Literal[
    "facility", "contrastive", "triplet", "triplet_hard", "lifted", "n_pair", "multi_similarity",
    "proxy_anchor", "softmax",
]  # fmt: skip
Refine = Literal["greedy", "pam", "swap"]
Augment = Literal["none", "crop", "flip"]


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"
    """A name in data/sources.yml, or "folder" with `path`."""
    path: str | None = None
    """Folder of images with one sub-folder per class; null for datasets known by name."""
    split: str = ""
    """Split to train on, and to test on unless `test_split` is given; empty: all images."""
    protocol: Literal["seen", "disjoint"] = "seen"
    """Test on other images of the training classes (seen), or on classes that are not trained on
    (disjoint)."""
    test_split: str = ""
    """Protocol seen: split to test on; empty: hold out `held_out` instead."""
    held_out: float = 0.25
    """Test fraction, between 0 and 1: of each class (seen), or of the classes (disjoint)."""
    root: str | None = None
    """Folder of all datasets; null: the environment variable DATA_ROOT, or data/."""
    size: int | None = None
    """Side in pixels of the square to which images are resized and center-cropped; null: their own
    size, or 64 for a folder whose images differ in size."""
    max_bad: float = 0.01
    """Largest fraction of unreadable files that is skipped; more of them are an error."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "size")
        require(0 < self.held_out < 1, "dataset.held_out", self.held_out, "between 0 and 1")


@dataclass(frozen=True)
class Model:
    depth: int = 40
    """Layers of the DenseNet: 4 plus a multiple of 3 (of 6 with bottleneck), shared by three dense
    blocks."""
    growth: int = 12
    """Channels that each layer adds (growth rate k of DenseNet)."""
    bottleneck: bool = False
    """DenseNet-BC: a 1x1 convolution to 4 k channels before each 3x3 convolution, and transitions
    that halve the channels."""
    dropout: float = 0.0
    """Dropout rate after each convolution, from 0 to below 1."""
    dim: int = 64
    """Dimensions of the embedding (paper: 64)."""
    normalize: bool = True
    """Scale embeddings to unit length."""
    trunk: str | None = None
    """Run folder to take initial weights from, except for the embedding layer; null: random
    weights."""
    n_clusters: int | None = None
    """Number of k-means clusters of the embeddings; null: the number of classes."""

    def __post_init__(self) -> None:
        n_parts = 6 if self.bottleneck else 3
        is_valid = self.depth >= 4 + n_parts and (self.depth - 4) % n_parts == 0
        require(is_valid, "model.depth", self.depth, f"4 and a multiple of {n_parts}")
        checks.at_least(self, 1, "growth", "dim", "n_clusters")
        checks.below_one(self, "dropout")


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """Random seed of weights, batches and augmentation; the test images do not depend on it."""
    loss: Loss = "facility"
    """Loss function: facility location (the paper), or a baseline."""
    gamma: float = 64.0
    """Facility location: weight of the margin (at most 1) relative to distances summed over the
    batch; good values are near the batch size."""
    refine: Refine = "greedy"
    """Facility location: medoids found greedily, refined by PAM (paper), or by swaps (a longer
    search)."""
    margin: Literal["nmi", "ami", "ari", "vmeasure", "const"] = "nmi"
    """Facility location: margin of a clustering, 1 minus NMI (paper), AMI, ARI or V-measure, or 1
    for every partition other than the classes (const)."""
    nmi_average: Literal["arithmetic", "geometric"] = "arithmetic"
    """Facility location: mean of the two entropies in NMI and AMI (paper: geometric)."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum of the loss over the batch (paper: sum)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer; sgd uses Nesterov momentum 0.9."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 1e-4
    """Weight decay; 0: none. sgd: the gradient of an L2 penalty on all trained variables, after
    clipping, as in the original code; adam: decoupled, of convolutions and the embedding layer."""
    warmup: float = 0.05
    """Fraction of the training in which the learning rate rises linearly to `lr`."""
    milestones: tuple[float, ...] = ()
    """Fractions of the training, between 0 and 1, after each of which the learning rate is divided
    by 10; empty: cosine decay to 0."""
    batch_size: int = 128
    """Images per batch, at most."""
    images_per_class: int = 4
    """Images of each class in a batch; more if there are too few classes to fill it."""
    sampler: Literal["classes", "superclasses"] = "classes"
    """Choice of the classes of a batch: at random, or from few superclasses (cifar100 only)."""
    augment: Augment = "crop"
    """Augmentation: none, random shifts by up to an eighth of the image (crop), or these and
    horizontal flips (flip)."""
    n_epochs: int = 30
    """Epochs; 0: keep the untrained network."""
    visdom_port: int | None = None
    """Port of a visdom server on this machine that shows the curves live; null: none."""

    def __post_init__(self) -> None:
        checks.positive(self, "lr")
        checks.at_least(self, 0, "gamma", "weight_decay", "n_epochs")
        checks.at_least(self, 2, "batch_size", "images_per_class")
        checks.below_one(self, "warmup")
        is_valid = all(0 < fraction < 1 for fraction in self.milestones)
        expected = "fractions between 0 and 1"
        require(is_valid, "training.milestones", self.milestones, expected)


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
