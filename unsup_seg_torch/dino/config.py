"""Options of DINO; the shipped experiments are in configs/."""

from dataclasses import dataclass, field
from typing import Literal

from common import checks, require


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"
    """Name of a dataset in data/sources.yml, or folder."""
    path: str | None = None
    """Folder of images, flat or with one sub-folder per class, for dataset.name folder."""
    split: str = ""
    """Split to train on, as train or test. Empty: all images."""
    test_split: str = ""
    """Split of the queries of k-NN and linear probe. Empty: every fifth image of dataset.split."""
    root: str | None = None
    """Folder of the datasets. null: the environment's DATA_ROOT, else data/."""
    size: int | None = None
    """Side in pixels to which images are resized before they are cropped. null: their own size."""
    n_images: int | None = None
    """Number of images to use, evenly spread over the dataset. null: all."""
    max_bad: float = 0.01
    """Fraction of unreadable files up to which they are skipped; above it the run is refused."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "size", "n_images")
        checks.fraction(self, "max_bad")


@dataclass(frozen=True)
class Model:
    name: Literal["dino"] = "dino"
    """The model; --model.name wnet, segmenter or dino with --help shows the options of each."""
    backbone: str | None = None
    """Transformer of timm. null: vit_small_patch16_224.dino if pretrained, else the sizes below."""
    patch_size: int = 16
    """Side of a square patch in pixels."""
    width: int = 384
    """Dimensions of a token."""
    depth: int = 12
    """Number of transformer blocks."""
    n_heads: int | None = None
    """Number of attention heads. null: width / 64, as in published models."""
    stem: bool = False
    """Embed patches by 3 x 3 convolutions instead of one of the patch's size, as in the paper."""
    drop_path: float = 0.1
    """Stochastic depth rate of the student's last block; it rises linearly from 0."""
    hidden: int = 2048
    """Dimensions of the two hidden layers of the projection head."""
    bottleneck: int = 256
    """Dimensions of the normalized layer before the last one of the projection head."""
    n_outputs: int = 65536
    """Dimensions of the output distributions, the paper's K."""
    norm_last_layer: bool = True
    """Keep the weights of the last layer at length 1; the authors' ViT-S was trained with false."""
    pretrained: bool = False
    """Start from timm's weights of the backbone."""
    weights: str | None = None
    """A .safetensors or .pth file to start from: an encoder, or student and teacher with heads and
    the center, of a run or of the authors. null: none."""
    continue_training: bool = False
    """Continue the training of model.weights, a whole checkpoint of the authors: with its epoch and
    the moments of its AdamW. false: start a new training from its weights."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "patch_size", "width", "depth", "hidden", "bottleneck", "n_heads")
        checks.at_least(self, 2, "n_outputs")
        checks.below_one(self, "drop_path")
        is_named = bool(self.backbone or self.pretrained)
        require(not (self.stem and is_named), "model.stem", True, "false for a backbone of timm")
        can_continue = bool(self.weights) or not self.continue_training
        require(can_continue, "model.continue_training", True, "false without model.weights")


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """Seed of weights, crops and drop path."""
    lr: float = 5e-4
    """Highest learning rate for batches of 256; the rate used is lr * batch_size / 256, as in the
    paper."""
    final_lr: float = 1e-6
    """Learning rate at the end of the cosine decay, whatever the batch size."""
    warmup: float = 0.1
    """Fraction of the steps during which the learning rate rises; paper: 10 of 100 epochs."""
    weight_decay: float = 0.04
    """Weight decay at the start, of all parameters but biases and norms."""
    final_weight_decay: float = 0.4
    """Weight decay at the end; it rises along a cosine."""
    koleo: float = 0.0
    """Weight of the KoLeo loss, which spreads features evenly. 0: none, as in the paper."""
    clip: float | None = 3.0
    """Largest gradient norm of each parameter. null: no clipping."""
    batch_size: int = 64
    """Images per batch."""
    n_epochs: int = 100
    """Number of epochs. 0: keep the initial weights, to evaluate them."""
    momentum: float = 0.996
    """Momentum of the teacher's moving average at the start; it rises to 1 along a cosine."""
    temperature: float = 0.1
    """Softmax temperature of the student."""
    teacher_temperature: float = 0.04
    """Softmax temperature of the teacher at the start."""
    final_teacher_temperature: float = 0.04
    """Softmax temperature of the teacher after training.teacher_warmup."""
    teacher_warmup: float = 0.3
    """Fraction of the steps during which the teacher's temperature changes linearly."""
    center_momentum: float = 0.9
    """Momentum of the moving average that centers the teacher's outputs."""
    freeze_last: float = 1.0
    """Number of epochs during which the last layer is not trained."""
    large: int = 224
    """Side in pixels of the two global crops, which teacher and student see."""
    small: int = 96
    """Side in pixels of the local crops, which only the student sees."""
    n_small: int = 8
    """Number of local crops per image."""
    large_scale: tuple[float, float] = (0.4, 1.0)
    """Range of the area of a global crop, as a fraction of the image."""
    small_scale: tuple[float, float] = (0.05, 0.4)
    """Range of the area of a local crop, as a fraction of the image."""
    flip: bool = True
    """Mirror half of the crops; false if left and right differ, as for digits."""
    color: float = 1.0
    """Strength of color jitter. 0: no jitter, no grayscale and no solarization."""
    blur: float = 1.0
    """Factor of the standard deviations of Gaussian blur, 0.1 to 2 pixels of a crop. 1: the paper's
    for crops of 224 and 96 pixels; less for smaller ones. 0: none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating-point type of the network; auto: bfloat16 if the hardware supports it."""
    save_model: bool = False
    """Also write the teacher's weights as RUN/model.safetensors, which timm loads."""
    save_logs: bool = False
    """Also write the curves as RUN/images/losses.png."""
    visdom_port: int | None = None
    """Port of a visdom server on this machine that shows the curves live. null: none."""

    def __post_init__(self) -> None:
        checks.positive(self, "lr", "clip", "temperature")
        checks.positive(self, "teacher_temperature", "final_teacher_temperature")
        checks.at_least(self, 1, "batch_size", "large", "small")
        checks.at_least(self, 0, "n_epochs", "n_small", "final_lr", "koleo", "freeze_last")
        checks.at_least(self, 0, "weight_decay", "final_weight_decay", "color", "blur")
        checks.below_one(self, "momentum", "center_momentum", "warmup", "teacher_warmup")
        checks.rising(self, 1, "large_scale", "small_scale")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
