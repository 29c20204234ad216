"""Every knob of facility location metric learning; the shipped experiments are in configs/."""

import math
from dataclasses import dataclass, field
from typing import Literal

from common import require

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
    """Folder of images, one sub-folder a class."""
    split: str = ""
    """What is divided into training and test; empty: the whole set."""
    protocol: Literal["seen", "disjoint"] = "seen"
    """What is tested: other images of the classes that are trained on, or other classes."""
    test_split: str = ""
    """Protocol seen: the set's own test images, in the place of held_out."""
    held_out: float = 0.25
    """Share of each class, or of the classes, that is for the test only."""
    root: str | None = None
    """Where data lies; default: DATA_ROOT, else data/."""
    size: int | None = None
    """Pixels, square; photos are resized and cropped at the centre."""
    max_bad: float = 0.01
    """Largest share of unreadable files that is skipped, not refused."""

    def __post_init__(self) -> None:
        require(self.size is None or self.size >= 1, "dataset.size", self.size, "1 or more")
        require(0 < self.held_out < 1, "dataset.held_out", self.held_out, "between 0 and 1")


@dataclass(frozen=True)
class Model:
    depth: int = 40
    """Layers; three dense blocks share depth - 4."""
    growth: int = 12
    """Channels that a layer adds; the paper's k."""
    bottleneck: bool = False
    """DenseNet-BC: 1x1 convolutions to 4 k first, and transitions halve."""
    dropout: float = 0.0
    """After every convolution."""
    dim: int = 64
    """Of an embedding."""
    normalize: bool = True
    """Whether embeddings are unit vectors."""
    trunk: str | None = None
    """Run folder whose network this one starts as, but for the embedding."""
    n_clusters: int | None = None
    """Of k-means on the embeddings; default: as many as classes."""

    def __post_init__(self) -> None:
        n_parts = 6 if self.bottleneck else 3
        require(
            self.depth >= 4 + n_parts and (self.depth - 4) % n_parts == 0,
            "model.depth", self.depth, f"4 and a multiple of {n_parts}",
        )  # fmt: skip
        for name in ("growth", "dim"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "1 or more")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "0 or more, below 1")
        require(
            self.n_clusters is None or self.n_clusters >= 1,
            "model.n_clusters",
            self.n_clusters,
            "1 or more",
        )


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """"""
    loss: Loss = "facility"
    """"""
    gamma: float = 64.0
    """Facility: weight of the margin, against distances summed over the batch."""
    refine: Refine = "greedy"
    """Facility: how far the search goes."""
    margin: Literal["nmi", "ami", "ari", "vmeasure", "const"] = "nmi"
    """"""
    nmi_average: Literal["arithmetic", "geometric"] = "arithmetic"
    """"""
    reduction: Literal["mean", "sum"] = "mean"
    """Of the terms; sum is the original."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Sgd has Nesterov's momentum 0.9."""
    lr: float = 1e-3
    """"""
    weight_decay: float = 1e-4
    """Of convolutions and of the embedding."""
    warmup: float = 0.05
    """Share of the training in which the rate rises."""
    milestones: tuple[float, ...] = ()
    """Shares of the training after which the rate is a tenth; empty: it falls along a cosine."""
    batch_size: int = 128
    """"""
    images_per_class: int = 4
    """Of a batch; more where there are too few classes to fill it."""
    sampler: Literal["classes", "superclasses"] = "classes"
    """Whose images meet; cifar100 has both."""
    augment: Augment = "crop"
    """Shifts of an eighth; flip: mirrored as well."""
    n_epochs: int = 30
    """0: the untrained network."""
    visdom_port: int | None = None
    """Mirror the curves to a visdom server on this machine."""

    def __post_init__(self) -> None:
        require(self.lr > 0 and math.isfinite(self.lr), "training.lr", self.lr, "a number above 0")
        for name in ("gamma", "weight_decay", "n_epochs"):
            value = getattr(self, name)
            require(value >= 0, f"training.{name}", value, "0 or more")
        require(0 <= self.warmup < 1, "training.warmup", self.warmup, "a share below 1")
        require(
            all(0 < share < 1 for share in self.milestones),
            "training.milestones", self.milestones, "shares between 0 and 1",
        )  # fmt: skip
        for name in ("batch_size", "images_per_class"):
            value = getattr(self, name)
            require(value >= 2, f"training.{name}", value, "2 or more")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
