"""Random views of a batch of images of any sizes: each is cut, resized, recoloured by itself.

A crop, its resizing and mirroring are one matrix for the rows of an image and one for its columns,
so that a batch is two products; all changes of colour are one 3x3 matrix and a shift.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor

GRAY = (0.299, 0.587, 0.114)
# luminance, and two axes of colour around which hues are turned (YIQ)
YIQ = (GRAY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def uniform(n: int, bounds: tuple[float, float], generator: Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=generator)


# ---- where


def stack(pictures: Sequence[np.ndarray]) -> Tensor:
    """uint8 (h, w, 3) of any sizes -> float32 (b, 3, H, W) of 0 to 255, zeros where one ends."""
    h, w = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    canvas = np.zeros((len(pictures), h, w, 3), np.uint8)
    for place, picture in zip(canvas, pictures, strict=True):
        place[: picture.shape[0], : picture.shape[1]] = picture
    return torch.from_numpy(canvas).permute(0, 3, 1, 2).float()


def weights(starts: Tensor, steps: Tensor, sides: Tensor, n_out: int) -> Tensor:
    """Matrices (b, n_out, max(sides)) whose rows are pixels: `steps` apart from `starts` on.

    starts, steps, sides (b,): in pixels of the image. Linear between pixels; where the view
    shrinks, over as many as fall into one. A row whose centre is outside of the image is zeros.
    """
    centres = starts[:, None] + (torch.arange(n_out) + 0.5) * steps[:, None]  # (b, n_out)
    places = torch.arange(int(sides.max())) + 0.5
    distances = (places - centres[:, :, None]).abs()
    found = (1 - distances / steps[:, None, None].clamp(min=1)).clamp_(min=0)
    found *= places < sides[:, None, None]
    found /= found.sum(2, keepdim=True).clamp(min=1e-6)
    return found * ((centres >= 0) & (centres < sides[:, None]))[:, :, None]


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """images (b, c, h, w), rows (b, s, h), columns (b, t, w) -> (b, c, s, t)"""
    b, c, h, w = images.shape
    narrow = images.reshape(b, c * h, w) @ columns.transpose(1, 2)
    return rows[:, None] @ narrow.view(b, c, h, -1)


def nearest(start: float, step: float, side: int, n_out: int) -> np.ndarray:
    """Which pixel each of n_out falls on, as `weights` has them; -1 outside of the image."""
    centres = np.floor(start + (np.arange(n_out) + 0.5) * step).astype(np.int64)
    return np.where((centres >= 0) & (centres < side), centres, -1)


# ---- colours


def recolour(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Images (b, 3, h, w) in [0, 1], changed in this order and cut to [0, 1] at the end.

    The four (b,): three factors and a turn of the colour circle, 1 of a full one; saturation 0
    is gray. Contrast is around each image's own mean.
    """
    unit, gray = torch.eye(3), torch.tensor([GRAY] * 3)
    brightness, contrast, saturation = (
        each[:, None, None] for each in (brightness, contrast, saturation)
    )
    means = images.mean((2, 3))[:, :, None].cpu()
    last = (saturation * unit + (1 - saturation) * gray) @ turns(hue)
    matrices = last @ (contrast * brightness * unit)  # (b, 3, 3)
    shifts = last @ ((1 - contrast) * (gray @ (brightness * means)))  # (b, 3, 1)
    matrices, shifts = matrices.to(images.device), shifts.to(images.device)
    return torch.baddbmm(shifts, matrices, images.flatten(2)).view(images.shape).clamp_(0, 1)


def turns(hue: Tensor) -> Tensor:
    """Matrices (b, 3, 3) that turn the hues of RGB colours by so many full circles (b,)."""
    yiq = torch.tensor(YIQ)
    cosines, sines = (2 * math.pi * hue).cos(), (2 * math.pi * hue).sin()
    rotations = torch.eye(3).repeat(len(hue), 1, 1)
    rotations[:, 1, 1] = rotations[:, 2, 2] = cosines
    rotations[:, 1, 2], rotations[:, 2, 1] = -sines, sines
    return yiq.inverse() @ rotations @ yiq
