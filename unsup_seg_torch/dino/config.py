"""Every knob of DINO; the shipped experiments are in configs/."""

import math
from dataclasses import dataclass, field
from typing import Literal

from common import require


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"
    """A name in data/sources.yml, or "folder" with `path`."""
    path: str | None = None
    """A folder of images, flat or with one sub-folder a class."""
    split: str = ""
    """"train", "test", ...; empty: the whole set."""
    test_split: str = ""
    """Held-out images that k-NN and the linear probe are asked about; empty: every fifth of
    `split`."""
    root: str | None = None
    """Where data lies; default: DATA_ROOT, else data/."""
    size: int | None = None
    """Pixels, square, of the images that crops are cut from."""
    n_images: int | None = None
    """So many, spread evenly over the set."""
    max_bad: float = 0.01
    """Largest share of unreadable files that is skipped, not refused."""

    def __post_init__(self) -> None:
        for name in ("size", "n_images"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"dataset.{name}", value, "1 or more")
        require(0 <= self.max_bad <= 1, "dataset.max_bad", self.max_bad, "a share, 0 to 1")


@dataclass(frozen=True)
class Model:
    name: Literal["dino"] = "dino"
    """"""
    backbone: str | None = None
    """A vision transformer of timm; null: vit_small_patch16_224.dino if pretrained, else the
    sizes."""
    patch_size: int = 16
    """Pixels, square."""
    width: int = 384
    """Of a token."""
    depth: int = 12
    """Blocks."""
    n_heads: int | None = None
    """Null: width / 64, as all published ones have."""
    stem: bool = False
    """Convolutions of 3 x 3 see a patch, of our own sizes; paper: one of its size."""
    drop_path: float = 0.1
    """Share of the student's last block's steps that are left out."""
    hidden: int = 2048
    """Of the head's two hidden layers."""
    bottleneck: int = 256
    """Of what is normalised before the last layer."""
    n_outputs: int = 65536
    """Dimensions of the distributions."""
    norm_last_layer: bool = True
    """The rows of the last layer keep length 1."""
    pretrained: bool = False
    """Start from timm's weights of the backbone."""
    weights: str | None = None
    """Start from this .safetensors or .pth file, as of the authors."""

    def __post_init__(self) -> None:
        for name in ("patch_size", "width", "depth", "hidden", "bottleneck"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "1 or more")
        require(
            self.n_heads is None or self.n_heads >= 1, "model.n_heads", self.n_heads, "1 or more"
        )
        require(self.n_outputs >= 2, "model.n_outputs", self.n_outputs, "2 or more")
        named = bool(self.backbone or self.pretrained)
        require(not (self.stem and named), "model.stem", True, "false for a backbone of timm")
        share = self.drop_path
        require(0 <= share < 1, "model.drop_path", share, "0 or more, below 1")


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """"""
    lr: float = 5e-4
    """The highest; paper: 5e-4 * batch_size / 256."""
    final_lr: float = 1e-6
    """At the end of the cosine."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises; paper: 10 of 100 epochs."""
    weight_decay: float = 0.04
    """Of all but biases and norms; rises along a cosine to."""
    final_weight_decay: float = 0.4
    """"""
    koleo: float = 0.0
    """Weight of spreading the features evenly (Sablayrolles et al. 2019)."""
    clip: float | None = 3.0
    """Largest norm of the gradient of each parameter."""
    batch_size: int = 64
    """"""
    n_epochs: int = 100
    """0: the weights as they are given."""
    momentum: float = 0.996
    """Of the teacher; rises along a cosine to 1."""
    temperature: float = 0.1
    """Of the student."""
    teacher_temperature: float = 0.04
    """Rises to the next in `teacher_warmup`."""
    final_teacher_temperature: float = 0.04
    """"""
    teacher_warmup: float = 0.3
    """Share of the steps."""
    centre_momentum: float = 0.9
    """"""
    freeze_last: float = 1.0
    """Epochs in which the last layer stays."""
    large: int = 224
    """Pixels, square, of the two crops that the teacher sees."""
    small: int = 96
    """Of those for the student alone."""
    n_small: int = 8
    """"""
    large_scale: tuple[float, float] = (0.4, 1.0)
    """Share of the image's area."""
    small_scale: tuple[float, float] = (0.05, 0.4)
    """"""
    flip: bool = True
    """Mirror images; false where left and right differ, as in digits."""
    colour: float = 1.0
    """Strength of the changes of colour; 0: none, nor gray, nor solarised."""
    blur: float = 1.0
    """Strength of the blur; 0: none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """"""
    save_model: bool = False
    """Also the teacher's weights alone, as RUN/model.safetensors."""
    save_logs: bool = False
    """Also the curves, as RUN/images/losses.png."""
    visdom_port: int | None = None
    """Mirror the curves to a visdom server on this machine."""

    def __post_init__(self) -> None:
        require(self.lr > 0 and math.isfinite(self.lr), "training.lr", self.lr, "a number above 0")
        for name in ("batch_size", "large", "small"):
            require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "1 or more")
        for name in ("n_epochs", "n_small", "final_lr", "weight_decay", "final_weight_decay",
                     "koleo", "freeze_last", "colour", "blur"):  # fmt: skip
            require(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "0 or more")
        for name in ("momentum", "centre_momentum", "warmup", "teacher_warmup"):
            value = getattr(self, name)
            require(0 <= value < 1, f"training.{name}", value, "0 or more, below 1")
        for name in ("temperature", "teacher_temperature", "final_teacher_temperature"):
            require(getattr(self, name) > 0, f"training.{name}", getattr(self, name), "more than 0")
        for name in ("large_scale", "small_scale"):
            low, high = getattr(self, name)
            require(0 < low <= high <= 1, f"training.{name}", [low, high], "0 < low <= high <= 1")
        clip = self.clip
        require(clip is None or clip > 0, "training.clip", clip, "more than 0, or null")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
