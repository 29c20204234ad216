"""Options of Segmenter; the shipped experiments are in configs/."""

from dataclasses import dataclass, field
from typing import Literal

from common import checks, require


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"
    """digits (digits composited on gray), camvid, ade20k, stanford_background, or folder."""
    path: str | None = None
    """Folder of images and label maps, for dataset.name folder."""
    split: str = "train"
    """Split to train on."""
    test_split: str = "val"
    """Split that pred.py segments and evaluate.py scores. Empty: the one trained on."""
    root: str | None = None
    """Folder of the datasets. null: the environment's DATA_ROOT, else data/."""
    values: tuple[int, ...] | None = None
    """Values of the classes in the label maps of a folder, in order, such as [0, 255] for masks;
    others are unlabeled. null: 0, 1, 2, ..., and 255 where unlabeled."""
    short_side: int | None = None
    """Shorter side in pixels to which images are resized for the network. null: their own size."""
    crop: tuple[int, int] = (512, 512)
    """Height and width in pixels of the training crops and of the inference windows."""
    n_images: int | None = None
    """Number of images to use, the first ones. null: all."""
    max_bad: float = 0.01
    """Fraction of unreadable files up to which they are skipped; above it the run is refused."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "short_side", "n_images")
        sides = list(self.crop)
        require(len(sides) == 2 and min(sides) >= 1, "dataset.crop", sides, "[height, width]")
        checks.fraction(self, "max_bad")
        if self.values is not None:
            values = list(self.values)
            is_valid = 2 <= len(set(values)) == len(values) and min(values) >= 0
            require(is_valid, "dataset.values", values, "two or more different values from 0")


@dataclass(frozen=True)
class Model:
    name: Literal["segmenter"] = "segmenter"
    """The model; --model.name wnet, segmenter or dino with --help shows the options of each."""
    backbone: str | None = None
    """Transformer of timm. null: vit_tiny_patch16_384 if pretrained, else the sizes below."""
    patch_size: int = 16
    """Side of a square patch in pixels."""
    width: int = 192
    """Dimensions of a token."""
    depth: int = 12
    """Number of transformer blocks."""
    n_heads: int | None = None
    """Number of attention heads. null: width / 64, as in published models."""
    drop_path: float = 0.1
    """Stochastic depth rate of the encoder's last block; it rises linearly from 0."""
    decoder: Literal["mask", "linear"] = "mask"
    """Decoder: the paper's mask transformer, or its linear baseline."""
    decoder_depth: int = 2
    """Number of blocks of the mask transformer."""
    dropout: float = 0.1
    """Dropout probability in the mask transformer."""
    cells: int = 1
    """Logits per side of a patch: cells x cells for each class and patch; paper: 1."""
    pretrained: bool = False
    """Start from timm's weights of the backbone."""
    weights: str | None = None
    """A .safetensors or .pth file to start from: an encoder, or encoder and decoder of a run or of
    the authors. null: none."""
    load_decoder: bool = True
    """Load the decoder of model.weights if it has one; false for other classes or sizes."""
    stride: int | None = None
    """Step in pixels between inference windows of the crop's size, to which smaller images are
    enlarged. null: the crop less 32."""
    scales: tuple[float, ...] = (1.0,)
    """Image scales whose predictions are averaged; paper, multi-scale: 0.5 to 1.75."""
    flip: bool = False
    """Also average over mirrored images."""
    crf_iterations: int = 0
    """Mean-field iterations of the dense CRF on the probabilities. 0: no CRF, as in the paper."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "patch_size", "width", "depth", "decoder_depth", "cells")
        checks.at_least(self, 1, "n_heads", "stride")
        checks.at_least(self, 0, "crf_iterations")
        checks.below_one(self, "drop_path", "dropout")
        scales = list(self.scales)
        require(bool(scales) and min(scales) > 0, "model.scales", scales, "numbers above 0")
        require(max(scales) <= 8, "model.scales", scales, "8 or less")


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """Seed of weights, augmentation and dropout."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd with polynomial decay of the learning rate, as in the paper; adamw with cosine decay."""
    lr: float = 1e-3
    """Highest learning rate."""
    momentum: float = 0.9
    """Momentum of sgd."""
    weight_decay: float = 0.0
    """Weight decay of all parameters but biases, norms and embeddings."""
    warmup: float = 0.0
    """Fraction of the steps during which the learning rate rises linearly."""
    batch_size: int = 8
    """Crops per batch."""
    n_epochs: int = 64
    """Number of epochs. 0: keep model.weights, which needs a decoder, and read no images."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the random scale factor of an image before it is cropped."""
    single_class: float = 0.75
    """Largest fraction of a crop that one class may cover; of ten tries the last is kept."""
    flip: bool = True
    """Mirror half of the crops; false if left and right differ, as for digits."""
    color: float = 1.0
    """Strength of random changes of brightness, contrast, saturation and hue. 0: none."""
    balance: float = 0.0
    """Exponent of 1 / frequency in the class weights of the loss. 0: no class weights."""
    average: float = 0.0
    """Decay of an exponential moving average of the weights, which is kept. 0: no average."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating-point type of the network; auto: bfloat16 if the hardware supports it."""
    save_model: bool = False
    """Also write the final weights as RUN/model.safetensors."""
    save_logs: bool = False
    """Also write the loss curves as RUN/images/losses.png."""
    visdom_port: int | None = None
    """Port of a visdom server on this machine that shows the curves live. null: none."""

    def __post_init__(self) -> None:
        checks.positive(self, "lr")
        checks.at_least(self, 1, "batch_size")
        checks.at_least(self, 0, "n_epochs")
        checks.below_one(self, "momentum", "warmup", "average")
        checks.at_least(self, 0, "weight_decay", "color", "balance")
        checks.rising(self, 8, "scale")
        fraction = self.single_class
        require(0 < fraction <= 1, "training.single_class", fraction, "more than 0, up to 1")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
