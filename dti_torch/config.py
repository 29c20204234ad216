"""Every knob of DTI clustering; the shipped experiments are in configs/."""

import math
from dataclasses import dataclass, field
from typing import Literal

from common import require

Transformation = Literal["identity", "color", "affine", "projective", "tps", "morpho"]
Init = Literal["sample", "kmeans", "soup", "constant"]
Encoder = Literal[
    "strided", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110",
    "resnet18", "resnet34", "resnet50",
]  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"
    """A name in data/sources.yml, or "folder" with `path`."""
    path: str | None = None
    """Folder of images, flat or one sub-folder a class."""
    split: str = ""
    """"train", "test", ...; a collection's tag; empty: the whole set."""
    root: str | None = None
    """Where data lies; default: DATA_ROOT, else data/."""
    size: int | None = None
    """Pixels, square; photos are resized and cropped at the centre."""
    margin: int = 0
    """Black pixels around each image: what fills its frame cannot be zoomed into."""
    n_images: int | None = None
    """A fixed random subset; paper's mnist_1k: 1000."""
    colorize: bool = False
    """Random foreground and background colours: the paper's mnist_color."""
    max_bad: float = 0.01
    """Largest share of unreadable files that is skipped, not refused."""

    def __post_init__(self) -> None:
        require(self.size is None or self.size >= 1, "dataset.size", self.size, "1 or more")
        require(self.margin >= 0, "dataset.margin", self.margin, "0 or more")


@dataclass(frozen=True)
class Model:
    name: Literal["dtikmeans", "dtigmm"] = "dtikmeans"
    """"""
    n_prototypes: int = 10
    """"""
    init: Init = "sample"
    """"""
    init_value: float = 0.5
    """Gray level of `constant`."""
    encoder: Encoder = "resnet20"
    """"""
    transformations: tuple[Transformation, ...] = ("identity", "affine", "morpho", "tps")
    """"""
    curriculum: tuple[float, ...] = ()
    """When transformations 2, 3, ... start: epochs, or below 1 a share of them all; empty: at
    once."""
    grid_size: int = 4
    """Tps: control points a side."""
    kernel_size: int = 7
    """Morpho: pixels a side, odd."""
    padding: Literal["border", "zeros"] = "border"
    """What a warp reads outside the prototype."""
    gaussian_weights_std: float | None = None
    """Pixels; weighs the centre of the image higher."""
    empty_cluster_threshold: float | None = None
    """Share of the images; default 0.2 / n_prototypes."""
    reassign_empty: bool = True
    """Overwrite empty clusters by the largest one."""
    redundancy: float = 0.0
    """Until the last transformation starts, also move a prototype without which the loss would
    rise by less than this share of the worst cluster's part of it; 0 is the paper: empty ones
    only."""
    sigma_init: float = 0.5
    """Gmm: first standard deviation, added to var_min as a variance."""
    var_min: float = 0.0625
    """Gmm: smallest variance."""
    legacy: bool = False
    """The authors' tps, projective and morpho, whose identity is none."""

    def __post_init__(self) -> None:
        require(self.n_prototypes >= 1, "model.n_prototypes", self.n_prototypes, "1 or more")
        require(len(self.transformations) > 0, "model.transformations", "[]", "one or more")
        n_switches = len(self.transformations) - 1
        require(
            not self.curriculum or len(self.curriculum) == n_switches,
            "model.curriculum", self.curriculum,
            f"{n_switches} epochs, one a transformation after the first",
        )  # fmt: skip
        require(
            list(self.curriculum) == sorted(self.curriculum)
            and min(self.curriculum, default=0) >= 0,
            "model.curriculum", self.curriculum, "epochs in rising order",
        )  # fmt: skip
        require(self.grid_size >= 2, "model.grid_size", self.grid_size, "2 or more")
        require(
            self.kernel_size % 2 == 1 and self.kernel_size > 0,
            "model.kernel_size",
            self.kernel_size,
            "odd",
        )
        share = self.empty_cluster_threshold
        require(
            share is None or 0 <= share < 1 / self.n_prototypes,
            "model.empty_cluster_threshold", share, "a share below 1 / n_prototypes",
        )  # fmt: skip
        require(self.var_min > 0, "model.var_min", self.var_min, "more than 0")

    def starts(self, n_epochs: int) -> list[float]:
        """The curriculum in epochs."""
        return [epochs(start, n_epochs) for start in self.curriculum]


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """"""
    lr: float = 1e-3
    """"""
    batch_size: int = 128
    """"""
    n_epochs: int = 40
    """"""
    weight_decay: float = 1e-6
    """Of the encoder and regressors, not of the prototypes."""
    milestones: tuple[int, ...] = ()
    """Epochs when the learning rate is multiplied by `gamma`."""
    gamma: float = 0.1
    """"""
    cosine_from: float | None = None
    """Epoch, or below 1 share of the training, from which the rate falls to 0 along a cosine."""
    check_interval: int = 50
    """Steps between looks for empty clusters."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the encoder; auto: what is fast here."""
    visdom_port: int | None = None
    """Mirror the curves to a visdom server on this machine."""

    def __post_init__(self) -> None:
        require(self.lr > 0 and math.isfinite(self.lr), "training.lr", self.lr, "a number above 0")
        # batch norm cannot learn from one image
        require(self.batch_size >= 2, "training.batch_size", self.batch_size, "2 or more")
        require(self.n_epochs >= 1, "training.n_epochs", self.n_epochs, "1 or more")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)


def epochs(when: float, n_epochs: int) -> float:
    """A moment of the training in epochs; between 0 and 1 it is a share of all."""
    return when * n_epochs if 0 < when < 1 else when
