"""Every knob of differentiable feature clustering; the shipped experiments are in configs/."""

import math
from dataclasses import dataclass, field
from typing import Literal

from common import require

Mode = Literal["each", "frames", "reference"]


@dataclass(frozen=True)
class Dataset:
    name: str = "coffee"
    """A photograph of scikit-image, bsds500, or "folder" with `path`."""
    path: str | None = None
    """A picture or a folder; .npy and .tif may have any number of channels."""
    split: str = ""
    """Of bsds500: train, val, test; of a folder: a sub-folder."""
    root: str | None = None
    """Where data lies; default: DATA_ROOT, else data/."""
    mode: Mode = "each"
    """For several pictures: one network each; each from the previous one; one for all."""
    max_side: int = 1024
    """Pixels; a picture whose longest side is larger is reduced to it."""
    scribbles: str | None = None
    """Mask of the picture: 255 or the most frequent colour is unmarked."""
    max_bad: float = 0.01
    """Largest share of unreadable files that is skipped, not refused."""

    def __post_init__(self) -> None:
        require(self.max_side >= 1, "dataset.max_side", self.max_side, "1 or more")
        require(0 <= self.max_bad <= 1, "dataset.max_bad", self.max_bad, "a share, 0 to 1")


@dataclass(frozen=True)
class Model:
    n_blocks: int = 2
    """3x3 convolution, ReLU, normalisation; the paper's M."""
    width: int = 100
    """Filters of a block; the paper's p."""
    n_clusters: int = 100
    """Channels to win a pixel: the most labels there can be; the paper's q."""
    init: Literal["torch", "keras"] = "torch"
    """Whose default initialisation."""
    frozen_statistics: bool = False
    """Whether a new picture is normalised by the statistics of the training, not by its own."""
    superpixels: int = 0
    """SLIC segments whose pixels share a target, as in 2018; 0: none."""
    regions: Literal["none", "majority", "merge"] = "none"
    """What the labels become on Felzenszwalb's regions, which end at edges: none, the label of
    most pixels, or the regions themselves, merged where colours and labels are alike."""
    n_labels: int | None = None
    """Merge labels until so many are left."""
    min_area: float = 0.0
    """Share of the picture below which a connected piece joins a neighbour."""

    def __post_init__(self) -> None:
        for name in ("n_blocks", "width", "n_clusters"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "1 or more")
        require(self.n_clusters < 2**16, "model.n_clusters", self.n_clusters, "below 65536")
        require(self.superpixels >= 0, "model.superpixels", self.superpixels, "0 or more")
        require(
            self.n_labels is None or self.n_labels >= 1,
            "model.n_labels",
            self.n_labels,
            "1 or more",
        )
        require(0 <= self.min_area < 1, "model.min_area", self.min_area, "a share, 0 to 1")


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """"""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """"""
    lr: float = 0.1
    """"""
    momentum: float = 0.9
    """Of sgd."""
    n_iterations: int = 50
    """Of a picture, or of a batch of reference pictures."""
    n_warm_iterations: int = 20
    """Of every frame after the first."""
    min_labels: int = 3
    """Stop when no more labels than this are left; 0: never."""
    mu: float = 1.0
    """Weight of the spatial continuity."""
    auto_mu: Literal["none", "50/labels", "labels/15"] = "none"
    """Mu from the labels that are left."""
    scribble_weight: float = 0.5
    """Of the scribbled pixels' loss; the paper's nu."""
    max_side: int | None = 160
    """Pixels; trained at this longest side, applied at full size."""
    batch_size: int = 1
    """Reference pictures that are trained on together."""
    check_interval: int = 5
    """Iterations between looks at losses, labels and signals."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the convolutions."""
    visdom_port: int | None = None
    """Mirror the curves to a visdom server on this machine."""

    def __post_init__(self) -> None:
        require(self.lr > 0 and math.isfinite(self.lr), "training.lr", self.lr, "a number above 0")
        require(0 <= self.momentum < 1, "training.momentum", self.momentum, "0 or more, below 1")
        require(self.mu >= 0, "training.mu", self.mu, "0 or more")
        for name in ("n_iterations", "n_warm_iterations", "batch_size", "check_interval"):
            value = getattr(self, name)
            require(value >= 1, f"training.{name}", value, "1 or more")
        for name in ("min_labels", "scribble_weight"):
            value = getattr(self, name)
            require(value >= 0, f"training.{name}", value, "0 or more")
        require(
            self.max_side is None or self.max_side >= 1,
            "training.max_side",
            self.max_side,
            "1 or more",
        )


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
