"""Options of W-Net; the shipped experiments are in configs/."""

from dataclasses import dataclass, field
from typing import Literal

from common import checks, require


@dataclass(frozen=True)
class Dataset:
    name: str = "photographs"
    """photographs (six that come with the dependencies), bsds500, ade20k, camvid, or folder."""
    path: str | None = None
    """An image or a folder of images, for dataset.name folder."""
    split: str = ""
    """Split to train on, as in train+val; of a folder: a sub-folder. Empty: all images."""
    test_split: str = ""
    """Split that pred.py segments and evaluate.py scores. Empty: the one trained on."""
    root: str | None = None
    """Folder of the datasets. null: the environment's DATA_ROOT, else data/."""
    max_side: int | None = 240
    """Longer side in pixels to which images are reduced for the network. null: full size."""
    full_side: int | None = 1024
    """Longer side in pixels of what pred.py refines and writes. null: full size."""
    crop: int | None = 96
    """Side in pixels of the square training crops. null: whole images."""
    n_images: int | None = None
    """Number of images to use, the first ones. null: all."""
    max_bad: float = 0.01
    """Fraction of unreadable files up to which they are skipped; above it the run is refused."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "max_side", "full_side", "crop", "n_images")
        checks.fraction(self, "max_bad")


@dataclass(frozen=True)
class Model:
    name: Literal["wnet"] = "wnet"
    """The model; --model.name wnet, segmenter or dino with --help shows the options of each."""
    n_clusters: int = 16
    """Number of labels, the paper's K."""
    width: int = 16
    """Channels of the first level; paper: 64."""
    depth: int = 4
    """Number of downsampling levels, each with half the side and twice the channels."""
    dropout: float = 0.0
    """Dropout probability of whole channels in the separable modules; paper: 0.65."""
    radius: float = 5.0
    """Radius in pixels of the neighborhood in the soft normalized cut."""
    sigma_intensity: float = 10 / 255
    """Standard deviation of color differences, colors in [0, 1], in the soft normalized cut."""
    sigma_position: float = 4.0
    """Standard deviation of distances in pixels in the soft normalized cut."""
    pretrained: bool = False
    """Start from model.weights; without a file a warning is logged and weights are random."""
    weights: str | None = None
    """A model.safetensors of another run to start from. null: random weights."""
    crf_iterations: int = 5
    """Mean-field iterations of the dense CRF on the probabilities. 0: no CRF."""
    regions: Literal["labels", "felzenszwalb"] = "felzenszwalb"
    """What is merged to a hierarchy: connected components of the labels, or superpixels."""
    height: float = 3.5
    """Height at which the hierarchy is cut for the final regions; higher: fewer regions."""

    def __post_init__(self) -> None:
        checks.at_least(self, 2, "n_clusters")
        checks.at_least(self, 1, "width", "depth")
        require(self.n_clusters < 2**15, "model.n_clusters", self.n_clusters, "below 32768")
        require(self.depth <= 8, "model.depth", self.depth, "8 or less")
        checks.below_one(self, "dropout")
        checks.positive(self, "radius", "sigma_intensity", "sigma_position")
        require(self.radius <= 64, "model.radius", self.radius, "64 or less")
        checks.at_least(self, 0, "height", "crf_iterations")


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """Seed of weights, crops and dropout."""
    mode: Literal["alternating", "joint"] = "alternating"
    """Two updates per batch, cut then reconstruction, as in the paper; or one of their sum."""
    reconstruction: float = 100.0
    """Weight of the reconstruction loss beside the cut in mode joint."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimizer; paper: sgd."""
    lr: float = 1e-3
    """Learning rate."""
    momentum: float = 0.9
    """Momentum of sgd."""
    batch_size: int = 8
    """Crops per batch."""
    n_epochs: int = 10
    """Number of epochs."""
    crops: int | None = None
    """Crops per image and epoch. null: enough for at least 128 per epoch."""
    drop_every: int | None = None
    """Steps after which the learning rate is divided by 10; paper: 1000. null: never."""
    cosine: bool = True
    """Decay the learning rate to 0 along a cosine."""
    save_model: bool = False
    """Also write the final weights as RUN/model.safetensors."""
    save_logs: bool = False
    """Also write the loss curves as RUN/images/losses.png."""
    visdom_port: int | None = None
    """Port of a visdom server on this machine that shows the curves live. null: none."""

    def __post_init__(self) -> None:
        checks.positive(self, "lr")
        checks.below_one(self, "momentum")
        checks.at_least(self, 1, "batch_size", "n_epochs", "crops", "drop_every")
        checks.at_least(self, 0, "reconstruction")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
