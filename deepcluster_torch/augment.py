"""Random views of a batch, each image with parameters of its own, on the device of the batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator, Tensor


@dataclass(frozen=True)
class Augmentation:
    """What one view is made of. Strengths and shares of 0 switch a part off."""

    size: int  # pixels, of the square view
    scale: tuple[float, float] = (0.08, 1.0)  # share of the image's area that the crop has
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # of the crop's width to its height
    flip: float = 0.5  # share of the views that are mirrored
    brightness: float = 0.0  # factor in 1 - x .. 1 + x
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # turn of the colour circle, in -x .. x of a full one
    jitter: float = 0.8  # share of the views that those four change
    gray: float = 0.0  # share of the views without colour
    blur: float = 0.0  # share of the views that are blurred
    sigma: tuple[float, float] = (0.1, 2.0)  # of the blur, in pixels of a view of 224


def augment(images: Tensor, how: Augmentation, generator: Generator) -> Tensor:
    """uint8 (b, c, h, w) -> a random view of each, float (b, c, size, size) in [0, 1]."""
    raise NotImplementedError


def multi_crop(images: Tensor, crops: Sequence[Augmentation], generator: Generator) -> list[Tensor]:
    """One view for each of `crops`, large and small; as `augment`."""
    raise NotImplementedError


def centre(images: Tensor, size: int, share: float = 1.0) -> Tensor:
    """uint8 (b, c, h, w) -> the middle `share` of each side, float (b, c, size, size) in [0, 1].

    The paper's view without chance, 256 pixels of which 224 are seen, is share 0.875.
    """
    raise NotImplementedError
