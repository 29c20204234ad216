"""All options of differentiable feature clustering; the shipped experiments are in configs/."""

from dataclasses import dataclass, field
from typing import Literal

from common import checks, require

Mode = Literal["each", "frames", "reference"]


@dataclass(frozen=True)
class Dataset:
    name: str = "coffee"
    """A photograph of scikit-image (astronaut, chelsea, coffee, rocket), bsds500, or folder with
    dataset.path."""
    path: str | None = None
    """Image, or folder of images; .npy and .tif may have any number of channels; null: the dataset
    of dataset.name."""
    split: str = ""
    """Split of bsds500 (train, val, test), or subfolder of dataset.path; empty: all."""
    root: str | None = None
    """Folder of the datasets; null: the environment variable DATA_ROOT, else data/."""
    mode: Mode = "each"
    """How several images are trained on; each: a new network per image; frames: each image
    continues from the network of the previous one; reference: one network for all."""
    max_side: int = 1024
    """Longest side in pixels; larger images are reduced to it."""
    scribbles: str | None = None
    """Mask of the image with one flat color per class; 255 or the most frequent color is
    unmarked; null: no scribbles."""
    max_bad: float = 0.01
    """Fraction of unreadable files up to which they are skipped; more of them are an error."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "max_side")
        checks.fraction(self, "max_bad")


@dataclass(frozen=True)
class Model:
    n_blocks: int = 2
    """Blocks of 3x3 convolution, ReLU and normalization. Paper's M: 3, of its demo: 2."""
    width: int = 100
    """Filters per block. Paper's p: 100."""
    n_clusters: int = 100
    """Output channels, the largest possible number of labels. Paper's q: 100."""
    init: Literal["torch", "keras"] = "torch"
    """Framework whose default initialization is used. Paper: torch."""
    frozen_statistics: bool = False
    """Normalize new images by the statistics of the training image instead of their own.
    Paper: false."""
    superpixels: int = 0
    """Number of SLIC superpixels whose pixels share one target, as in Kanezaki 2018; 0: none."""
    regions: Literal["none", "majority", "merge"] = "none"
    """Alignment of the labels with image edges; none: the network's labels; majority: the most
    frequent label of each Felzenszwalb region; merge: Felzenszwalb regions merged by color, edges
    and labels. Paper: none."""
    n_labels: int | None = None
    """Number of labels to merge down to after the training; null: no merging."""
    min_area: float = 0.0
    """Fraction of the image below which a connected segment joins a neighbor; 0: none does."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "n_blocks", "width", "n_labels")
        checks.at_least(self, 2, "n_clusters")
        require(self.n_clusters < 2**16, "model.n_clusters", self.n_clusters, "below 65536")
        checks.at_least(self, 0, "superpixels")
        checks.below_one(self, "min_area")


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """Random seed of the initial weights."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimizer. Paper: sgd."""
    lr: float = 0.1
    """Learning rate. Paper: 0.1."""
    momentum: float = 0.9
    """Momentum of sgd. Paper: 0.9."""
    n_iterations: int = 50
    """Iterations per image, or per batch in dataset.mode reference. Paper: 500, its demo: 1000."""
    n_warm_iterations: int = 20
    """Iterations of each image after the first in dataset.mode frames."""
    min_labels: int = 3
    """Stop as soon as at most this number of labels is left; 0: never. Paper's demo: 3."""
    mu: float = 1.0
    """Weight of the spatial continuity loss. Paper: 5, its demo: 1."""
    auto_mu: Literal["none", "50/labels", "labels/15"] = "none"
    """Replace training.mu by a function of the current number of labels, as in DynaSeg; none: use
    training.mu."""
    scribble_weight: float = 0.5
    """Weight of the loss on scribbled pixels, the paper's nu; its demo: 0.5."""
    max_side: int | None = 160
    """Longest side in pixels during training; labels are predicted at full size; null: train at
    full size. Paper: full size."""
    batch_size: int = 1
    """Images per batch in dataset.mode reference."""
    check_interval: int = 5
    """Iterations between checks of losses, number of labels and signals to stop."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating-point type of the convolutions; auto: float32."""
    visdom_port: int | None = None
    """Port of a visdom server on this machine to show the curves on; null: none."""

    def __post_init__(self) -> None:
        checks.positive(self, "lr")
        checks.below_one(self, "momentum")
        checks.at_least(self, 0, "mu", "min_labels", "scribble_weight")
        names = "n_iterations", "n_warm_iterations", "batch_size", "check_interval", "max_side"
        checks.at_least(self, 1, *names)


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
