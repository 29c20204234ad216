"""Config classes of a made-up paper with two models."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"
    """Dataset to train on."""
    path: str | None = None
    """Folder of images."""


@dataclass(frozen=True)
class Model:
    name: Literal["kmeans", "gmm"] = "kmeans"
    """Kind of clustering."""
    n_clusters: int = 10
    """Number of clusters."""
    parts: tuple[str, ...] = ("identity",)
    """Transformations to learn,
    in this order."""
    legacy: bool = False


@dataclass(frozen=True)
class Training:
    lr: float = 1e-3
    """Step size, 100 % of it."""
    n_epochs: int = 4
    """Number of epochs."""
    widths: list[float] = field(default_factory=lambda: [1.0])
    """Widths in pixels."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"training.lr: expected more than 0, found {self.lr}")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Tree:
    name: Literal["tree"] = "tree"
    depth: int = 3
    """Number of levels."""


@dataclass(frozen=True)
class TreeConfig:
    dataset: Dataset = field(default_factory=Dataset)
    model: Tree = field(default_factory=Tree)
