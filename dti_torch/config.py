"""Options of DTI clustering; configs/ holds the experiments."""

from dataclasses import dataclass, field
from typing import Literal

from common import checks, require

Transformation = Literal["identity", "color", "affine", "projective", "tps", "morpho"]
Init = Literal["sample", "kmeans", "random", "constant", "soup"]
Encoder = Literal[
    "strided", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110",
    "resnet18", "resnet34", "resnet50",
]  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"
    """A name in data/sources.yml, or "folder" together with `path`."""
    path: str | None = None
    """Folder of images, flat or with one subfolder per class."""
    split: str = ""
    """Part of the dataset: "train", "test", ..., or the tag of a collection; empty: all of it."""
    root: str | None = None
    """Folder of the datasets; null: the environment variable DATA_ROOT, else data/."""
    size: int | None = None
    """Side in pixels of the square that images are resized and center-cropped to; null: their own
    size, or 64 for a folder of images of several sizes."""
    margin: int = 0
    """Black pixels added on each side, so that an image that fills its frame cannot be zoomed
    into."""
    n_images: int | None = None
    """Number of images of a fixed random subset, 1000 for the paper's MNIST-1k; null: all."""
    colorize: bool = False
    """Random foreground and background colors for gray images: the paper's MNIST-color."""
    max_bad: float = 0.01
    """Largest fraction of unreadable files that is skipped; more is an error."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "size", "n_images")
        checks.at_least(self, 0, "margin")


@dataclass(frozen=True)
class Model:
    name: Literal["dtikmeans", "dtigmm"] = "dtikmeans"
    """K-means or a Gaussian mixture (GMM)."""
    n_prototypes: int = 10
    """Number of clusters."""
    init: Init = "sample"
    """Initial prototypes: random images, centers of k-means on pixels, uniform noise ("random",
    "soup" in the authors' code) or a constant; the paper samples images."""
    init_value: float = 0.5
    """Gray level in [0, 1] of the initial prototypes with init "constant"."""
    encoder: Encoder = "resnet20"
    """Network whose features predict the transformations; the paper: resnet20, and resnet18 for
    photographs."""
    transformations: tuple[Transformation, ...] = ("identity", "affine", "morpho", "tps")
    """List of identity, color, affine, projective, tps (thin plate spline) and morpho (dilation or
    erosion), in the order they are applied; the first is active from the start."""
    curriculum: tuple[float, ...] = ()
    """When the transformations after the first become active: epochs, or below 1 a fraction of
    n_epochs; empty: from the start."""
    grid_size: int = 4
    """Thin plate spline: control points per side; 4 in the paper."""
    kernel_size: int = 7
    """Morphology: side of the window in pixels, odd; 7 in the paper."""
    padding: Literal["border", "zeros"] = "border"
    """Values outside of the prototype, as in torch's grid_sample; zeros for the paper's USPS."""
    gaussian_weights_std: float | None = None
    """Standard deviation in pixels of Gaussian pixel weights around the center, 7 for the paper's
    SVHN; null: equal weights."""
    empty_cluster_threshold: float | None = None
    """Fraction of the images below which a cluster counts as empty; null: 0.2 / n_prototypes, as in
    the authors' code; 0: none does."""
    reassign_empty: bool = True
    """Replace empty clusters by copies of the largest one."""
    surplus: float = 0.0
    """Prototypes that training starts with in addition to `n_prototypes`, as a fraction of them;
    those without which the loss rises least are removed one by one. 0, as in the paper: none."""
    pruning: tuple[float, float] = (0.6, 0.8)
    """When the first and the last surplus prototype is removed: epochs, or below 1 a fraction of
    n_epochs."""
    sigma_init: float = 0.5
    """GMM: initial sigma of the pixels in [0, 1], whose variance is sigma^2 + var_min."""
    var_min: float = 0.0625
    """GMM: smallest variance of a pixel in [0, 1]."""
    legacy: bool = False
    """Use the authors' TPS, homography and morphology, which do not start at the identity."""

    def __post_init__(self) -> None:
        checks.at_least(self, 1, "n_prototypes")
        require(len(self.transformations) > 0, "model.transformations", "[]", "one or more")
        n_starts, starts = len(self.transformations) - 1, list(self.curriculum)
        expected = f"{n_starts} epochs, one per transformation after the first"
        is_complete = not starts or len(starts) == n_starts
        require(is_complete, "model.curriculum", self.curriculum, expected)
        is_sorted = starts == sorted(starts) and min(starts, default=0) >= 0
        require(is_sorted, "model.curriculum", self.curriculum, "epochs in increasing order")
        first, last = self.pruning
        is_valid = 0 <= first <= last and (first < 1) == (last < 1)
        expected = "two epochs, or two fractions of n_epochs, in increasing order"
        require(is_valid, "model.pruning", list(self.pruning), expected)
        checks.at_least(self, 2, "grid_size")
        is_odd = self.kernel_size % 2 == 1 and self.kernel_size > 0
        require(is_odd, "model.kernel_size", self.kernel_size, "an odd number")
        threshold = self.empty_cluster_threshold
        is_valid = threshold is None or 0 <= threshold < 1 / self.n_prototypes
        expected = "a fraction below 1 / n_prototypes"
        require(is_valid, "model.empty_cluster_threshold", threshold, expected)
        checks.positive(self, "var_min", "gaussian_weights_std")
        checks.fraction(self, "init_value")
        checks.at_least(self, 0, "surplus", "sigma_init")

    def start_epochs(self, n_epochs: int) -> list[float]:
        """The curriculum in epochs."""
        return [in_epochs(start, n_epochs) for start in self.curriculum]

    def n_initial(self, n_images: int) -> int:
        """Number of prototypes at the start: at most one per image."""
        return min(self.n_prototypes + round(self.surplus * self.n_prototypes), n_images)

    def n_left(self, n_initial: int, epochs_done: float, n_epochs: int) -> int:
        """Number of prototypes after a number of epochs; `n_prototypes` after the last."""
        first, last = (in_epochs(when, n_epochs) for when in self.pruning)
        if epochs_done < min(first, n_epochs):
            return n_initial
        is_over = epochs_done >= min(last, n_epochs)
        fraction = 1.0 if is_over else (epochs_done - first) / (last - first)
        surplus = n_initial - self.n_prototypes
        return n_initial - min(surplus, 1 + int(fraction * (surplus - 1)))


@dataclass(frozen=True)
class Training:
    seed: int = 0
    """Seed of the initialization and of the order of the images."""
    lr: float = 1e-3
    """Learning rate of Adam; 0.001 in the paper."""
    batch_size: int = 128
    """Images per step; 128 in the paper, 64 for photographs."""
    n_epochs: int = 40
    """Passes over the dataset."""
    weight_decay: float = 1e-6
    """L2 penalty on the encoder and the regressors, not on the prototypes; 1e-6 in the paper."""
    milestones: tuple[int, ...] = ()
    """Epochs when the learning rate is multiplied by `gamma`; empty: never."""
    gamma: float = 0.1
    """Factor of the learning rate at each milestone; 0.1 in the paper."""
    cosine_from: float | None = None
    """Epoch, or below 1 a fraction of n_epochs, from which the learning rate falls to 0 along a
    cosine; null, as in the paper: it does not."""
    check_interval: int = 50
    """Steps between checks for empty clusters, and between log lines."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating-point type of the encoder; auto: bfloat16 if the hardware supports it."""
    visdom_port: int | None = None
    """Port of a visdom server on this machine that also shows the curves; null: none."""

    def __post_init__(self) -> None:
        checks.positive(self, "lr")
        checks.at_least(self, 2, "batch_size")  # batch norm needs more than one image
        checks.at_least(self, 1, "n_epochs", "check_interval")
        checks.at_least(self, 0, "weight_decay", "gamma", "cosine_from")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)


def in_epochs(when: float, n_epochs: int) -> float:
    """A time in epochs; `when` between 0 and 1 is a fraction of n_epochs."""
    return when * n_epochs if 0 < when < 1 else when
