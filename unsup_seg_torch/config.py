"""Every knob of W-Net; the shipped experiments are in configs/. At the end: all three models."""

import math
from dataclasses import dataclass, field
from typing import Literal

from common import require
from unsup_seg_torch.dino.config import Config as DINOConfig
from unsup_seg_torch.segmenter.config import Config as SegmenterConfig


@dataclass(frozen=True)
class Dataset:
    name: str = "photographs"
    """That come with the code; bsds500, ade20k, camvid; folder with `path`."""
    path: str | None = None
    """A picture or a folder of them."""
    split: str = ""
    """Of a data set, as train+val; of a folder: a sub-folder."""
    test_split: str = ""
    """What pred.py segments, and evaluate.py scores; empty: what was trained on."""
    root: str | None = None
    """Where data lies; default: DATA_ROOT, else data/."""
    max_side: int | None = 240
    """Pixels; larger pictures are reduced to it for the network."""
    full_side: int | None = 1024
    """The same for what pred.py refines and writes."""
    crop: int | None = 96
    """Pixels, square, that are trained on; null: whole pictures."""
    n_images: int | None = None
    """The first ones only."""
    max_bad: float = 0.01
    """Largest share of unreadable files that is skipped, not refused."""

    def __post_init__(self) -> None:
        for name in ("max_side", "full_side", "crop", "n_images"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"dataset.{name}", value, "1 or more")
        require(0 <= self.max_bad <= 1, "dataset.max_bad", self.max_bad, "a share, 0 to 1")


@dataclass(frozen=True)
class Model:
    name: Literal["wnet"] = "wnet"
    """"""
    n_clusters: int = 16
    """Labels a pixel may have; the paper's K."""
    width: int = 16
    """Channels of the first level; paper: 64."""
    depth: int = 4
    """Levels below it, each with half the sides and twice the channels."""
    dropout: float = 0.0
    """Share of channels, in the separable modules; paper: 0.65."""
    radius: float = 5.0
    """The soft normalised cut: what is near, in pixels, and what is alike, colours in [0, 1]."""
    sigma_intensity: float = 10 / 255
    """"""
    sigma_position: float = 4.0
    """"""
    pretrained: bool = False
    """Start from `weights`; without any it is said, and random ones serve."""
    weights: str | None = None
    """A model.safetensors of another run."""
    crf_iterations: int = 5
    """Of the dense CRF on the probabilities; 0: none."""
    regions: Literal["labels", "felzenszwalb"] = "felzenszwalb"
    """What joins to a hierarchy: pieces of the labels, or Felzenszwalb's regions of smoothed
    colours."""
    height: float = 3.5
    """At which it is cut for the one answer; higher: fewer regions."""

    def __post_init__(self) -> None:
        for name in ("n_clusters", "width", "depth"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "1 or more")
        require(self.n_clusters < 2**15, "model.n_clusters", self.n_clusters, "below 32768")
        require(self.depth <= 8, "model.depth", self.depth, "8 or less")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "0 or more, below 1")
        for name in ("radius", "sigma_intensity", "sigma_position"):
            require(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "more than 0")
        require(self.height >= 0, "model.height", self.height, "0 or more")
        require(self.radius <= 64, "model.radius", self.radius, "64 or less")
        iterations = self.crf_iterations
        require(iterations >= 0, "model.crf_iterations", iterations, "0 or more")


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """"""
    mode: Literal["alternating", "joint"] = "alternating"
    """The paper's two updates a batch, cut and reconstruction; or one of their sum."""
    reconstruction: float = 100.0
    """Joint: weight of the reconstruction beside the cut."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """"""
    lr: float = 1e-3
    """"""
    momentum: float = 0.9
    """Of sgd."""
    batch_size: int = 8
    """"""
    n_epochs: int = 10
    """"""
    crops: int | None = None
    """Of each picture in an epoch; null: so many that they are 128 or more."""
    drop_every: int | None = None
    """Steps after which the rate is divided by 10; paper: 1000."""
    cosine: bool = True
    """The rate falls to 0 along a cosine."""
    save_model: bool = False
    """Also the last weights alone, as RUN/model.safetensors."""
    save_logs: bool = False
    """Also the curves, as RUN/images/losses.png."""
    visdom_port: int | None = None
    """Mirror the curves to a visdom server on this machine."""

    def __post_init__(self) -> None:
        require(self.lr > 0 and math.isfinite(self.lr), "training.lr", self.lr, "a number above 0")
        require(0 <= self.momentum < 1, "training.momentum", self.momentum, "0 or more, below 1")
        for name in ("batch_size", "n_epochs", "crops"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"training.{name}", value, "1 or more")
        weight, drop = self.reconstruction, self.drop_every
        require(weight >= 0, "training.reconstruction", weight, "0 or more")
        require(drop is None or drop >= 1, "training.drop_every", drop, "1 or more")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)


CONFIGS = {"wnet": Config, "segmenter": SegmenterConfig, "dino": DINOConfig}  # by model.name
DEFAULTS = {"wnet": "embedded.yml", "segmenter": "digits.yml", "dino": "dino_digits.yml"}
