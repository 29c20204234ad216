"""Networks from images to features, and the heads on them."""

from pathlib import Path

from torch import Generator, Tensor, nn


def build(
    name: str,
    shape: tuple[int, int, int],
    *,
    sobel: bool = False,
    width: int = 64,
    n_blocks: int = 2,
    n_hidden: int = 4096,
    pretrained: bool = False,
) -> "Trunk":
    """The trunk of that name for images of `shape` (c, h, w), with random or timm's weights.

    name: alexnet, vgg11, vgg16, resnet18, resnet50; resnet, of `width` channels and `n_blocks` a
    stage; else a model of timm. n_hidden: of alexnet's and vgg's two fully connected layers; 0 is
    none, the mean over the places instead. Raises UserError for an unknown name, images that are
    too small, and `pretrained` without a network.
    """
    raise NotImplementedError


class Trunk(nn.Module):
    """Images float (b, c, h, w) in [0, 1] -> features (b, n_features).

    stages: name -> part, in order: "conv1", "conv2", ... The features of alexnet and vgg are those
    before the last ReLU (paper, section 4); `Head` puts it back.
    """

    n_features: int
    shape: tuple[int, int, int]

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def activations(self, images: Tensor) -> dict[str, Tensor]:
        """After each stage: "conv1" (b, c1, h1, w1), ...; for probes and pictures."""
        raise NotImplementedError

    def first_filters(self) -> Tensor:
        """Weights (n, c, h, w) of the first convolution; raises UserError if there is none."""
        raise NotImplementedError


class Head(nn.Module):
    """Features (b, f) -> scores (b, k): ReLU, then a linear layer (the paper's top layer)."""

    def __init__(self, n_features: int, n_clusters: int):
        super().__init__()
        raise NotImplementedError

    def reset(self, generator: Generator | None = None) -> None:
        """New weights N(0, 0.01), biases 0."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        raise NotImplementedError


class Projection(nn.Module):
    """Features (b, f) -> embeddings (b, d) of length 1: linear, batch norm, ReLU, linear."""

    def __init__(self, n_features: int, n_hidden: int = 2048, n_out: int = 128):
        super().__init__()
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        raise NotImplementedError


class Prototypes(nn.Module):
    """Several heads whose weights are centroids of length 1, and are not learned."""

    def __init__(self, n_dims: int, n_clusters: tuple[int, ...]):
        super().__init__()
        raise NotImplementedError

    def set(self, head: int, centroids: Tensor) -> None:
        """Puts centroids (k, d) into a head, normalised."""
        raise NotImplementedError

    def forward(self, embeddings: Tensor) -> list[Tensor]:
        """embeddings (b, d) -> cosines (b, k) of each head"""
        raise NotImplementedError


def load(trunk: Trunk, path: Path) -> None:
    """Fills the trunk from a .safetensors or .pth file; raises UserError if one weight is missing.

    A .pth is read as tensors only, nothing in it is executed. Prefixes as of DataParallel and of
    our own runs are dropped, and weights of other parts (a classifier) are left out and logged.
    """
    raise NotImplementedError
