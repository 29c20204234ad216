"""Every knob of Segmenter; the shipped experiments are in configs/."""

import math
from dataclasses import dataclass, field
from typing import Literal

from common import require


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"
    """Drawn on canvases; camvid, ade20k, stanford_background; folder with `path`."""
    path: str | None = None
    """A folder of images and labels."""
    split: str = "train"
    """What is trained on."""
    test_split: str = "val"
    """What pred.py segments, and evaluate.py scores; empty: the former."""
    root: str | None = None
    """Where data lies; default: DATA_ROOT, else data/."""
    short_side: int | None = None
    """Pixels, that of each image the network is trained on."""
    crop: tuple[int, int] = (512, 512)
    """Height and width of what is trained on."""
    n_images: int | None = None
    """The first ones only."""
    max_bad: float = 0.01
    """Largest share of unreadable files that is skipped, not refused."""

    def __post_init__(self) -> None:
        for name in ("short_side", "n_images"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"dataset.{name}", value, "1 or more")
        sides = list(self.crop)
        require(len(sides) == 2 and min(sides) >= 1, "dataset.crop", sides, "[height, width]")
        require(0 <= self.max_bad <= 1, "dataset.max_bad", self.max_bad, "a share, 0 to 1")


@dataclass(frozen=True)
class Model:
    name: Literal["segmenter"] = "segmenter"
    """"""
    backbone: str | None = None
    """A vision transformer of timm; null: vit_tiny_patch16_384 if pretrained, else the sizes
    below."""
    patch_size: int = 16
    """Pixels, square."""
    width: int = 192
    """Of a token."""
    depth: int = 12
    """Blocks."""
    n_heads: int | None = None
    """Null: width / 64, as all published ones have."""
    drop_path: float = 0.1
    """Share of the last block's steps that are left out."""
    decoder: Literal["mask", "linear"] = "mask"
    """The paper's two."""
    decoder_depth: int = 2
    """Blocks of the mask transformer."""
    dropout: float = 0.1
    """In them."""
    cells: int = 1
    """A side: logits of each patch; paper: 1."""
    pretrained: bool = False
    """Start from timm's weights of the backbone."""
    weights: str | None = None
    """Start from this .safetensors or .pth file."""
    stride: int | None = None
    """How pred.py looks at an image: windows of the crop's size, so far apart; null: 32 pixels
    less."""
    scales: tuple[float, ...] = (1.0,)
    """Of the image; paper, multi-scale: 0.5 to 1.75."""
    flip: bool = False
    """Also mirrored."""
    crf_iterations: int = 0
    """Of the dense CRF on the probabilities; paper: none."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "width", "depth", "decoder_depth", "cells"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "1 or more")
        for name in ("n_heads", "stride"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"model.{name}", value, "1 or more")
        for name in ("drop_path", "dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, f"model.{name}", value, "0 or more, below 1")
        scales = list(self.scales)
        require(bool(scales) and min(scales) > 0, "model.scales", scales, "numbers above 0")
        require(max(scales) <= 8, "model.scales", scales, "8 or less")
        iterations = self.crf_iterations
        require(iterations >= 0, "model.crf_iterations", iterations, "0 or more")


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Sgd: the paper's, polynomial; adamw: a cosine."""
    lr: float = 1e-3
    """"""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 0.0
    """Of all but biases, norms and embeddings."""
    warmup: float = 0.0
    """Share of the steps in which the rate rises."""
    batch_size: int = 8
    """"""
    n_epochs: int = 64
    """"""
    scale: tuple[float, float] = (0.5, 2.0)
    """By which an image is enlarged, before the crop."""
    single_class: float = 0.75
    """Largest share that one class may have of a crop, if it can be met."""
    flip: bool = True
    """Mirror images; false where left and right differ, as in digits."""
    colour: float = 1.0
    """Strength of the changes of brightness, contrast, saturation and hue."""
    balance: float = 0.0
    """Power of 1 / frequency by which classes weigh; 0: all pixels alike."""
    average: float = 0.0
    """The weights that are kept are a mean over steps that decays so; 0: the last."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """"""
    save_model: bool = False
    """Also the last weights alone, as RUN/model.safetensors."""
    save_logs: bool = False
    """Also the curves, as RUN/images/losses.png."""
    visdom_port: int | None = None
    """Mirror the curves to a visdom server on this machine."""

    def __post_init__(self) -> None:
        require(self.lr > 0 and math.isfinite(self.lr), "training.lr", self.lr, "a number above 0")
        for name in ("batch_size", "n_epochs"):
            value = getattr(self, name)
            require(value >= 1, f"training.{name}", value, "1 or more")
        for name in ("momentum", "warmup", "average"):
            value = getattr(self, name)
            require(0 <= value < 1, f"training.{name}", value, "0 or more, below 1")
        for name in ("weight_decay", "colour", "balance"):
            require(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "0 or more")
        low, high = self.scale
        require(0 < low <= high <= 8, "training.scale", [low, high], "0 < low <= high <= 8")
        share = self.single_class
        require(0 < share <= 1, "training.single_class", share, "more than 0, up to 1")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
