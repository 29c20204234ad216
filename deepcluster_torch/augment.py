"""Random views of a batch, each image with parameters of its own, on the device of the batch.

A view is two batched products of matrices and one of colours: a crop, its resizing, mirroring and
blurring are one matrix for the rows of an image and one for its columns, and all changes of colour
are one 3x3 matrix and a shift.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

N_TRIES = 10  # at a crop that fits into the image
BLUR_SIZE = 224  # pixels of the view that `sigma` is meant for
GRAY = (0.299, 0.587, 0.114)
# luminance, and two axes of colour around which hues are turned (YIQ)
YIQ = (GRAY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


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
    """uint8 (b, c, h, w) -> a random view of each, float (b, c, size, size) in [0, 1].

    The generator is on the CPU, so that a device draws the same views.
    """
    return _view(_floats(images), how, generator)


def multi_crop(images: Tensor, crops: Sequence[Augmentation], generator: Generator) -> list[Tensor]:
    """One view for each of `crops`, large and small; as `augment`."""
    floats = _floats(images)
    return [_view(floats, how, generator) for how in crops]


def centre(images: Tensor, size: int, share: float = 1.0) -> Tensor:
    """uint8 (b, c, h, w) -> the middle `share` of each side, float (b, c, size, size) in [0, 1].

    The paper's view without chance, 256 pixels of which 224 are seen, is share 0.875.
    """
    height, width = images.shape[2:]
    columns, rows = (
        _weights(torch.tensor([n * (1 - share) / 2]), torch.tensor([n * share]), n, size)
        for n in (width, height)
    )
    return _resample(_floats(images), rows.to(images.device), columns.to(images.device))


def _floats(images: Tensor) -> Tensor:
    return images.to(torch.float32, memory_format=torch.contiguous_format)


def _view(images: Tensor, how: Augmentation, generator: Generator) -> Tensor:
    b, _, height, width = images.shape
    tops, lefts, heights, widths = _crops(b, height, width, how, generator)
    columns = _weights(lefts, widths, width, how.size)  # (b, size, w)
    flipped = torch.rand(b, generator=generator) < how.flip
    columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    rows = _weights(tops, heights, height, how.size)  # (b, size, h)
    if how.blur:
        chosen = torch.rand(b, generator=generator) < how.blur
        sigmas = _uniform(b, how.sigma, generator) * how.size / BLUR_SIZE
        blurs = _gaussians(torch.where(chosen, sigmas, 0.0), how.size)
        rows, columns = blurs @ rows, blurs @ columns
    views = _resample(images, rows.to(images.device), columns.to(images.device))
    if how.brightness or how.contrast or how.saturation or how.hue or how.gray:
        views = _recolour(views, how, generator)
    return views.clamp_(0, 1)


def _uniform(b: int, bounds: tuple[float, float], generator: Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(b, generator=generator)


# ---- where


def _crops(
    b: int, height: int, width: int, how: Augmentation, generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of random crops, in pixels, each (b,)."""
    shape = N_TRIES * b
    areas = height * width * _uniform(shape, how.scale, generator).view(N_TRIES, b)
    logs = _uniform(shape, (math.log(how.ratio[0]), math.log(how.ratio[1])), generator)
    ratios = logs.exp().view(N_TRIES, b)
    heights, widths = (areas / ratios).sqrt(), (areas * ratios).sqrt()
    # the first try that fits, else the first one cut to fit
    first = ((heights <= height) & (widths <= width)).float().argmax(0, keepdim=True)
    heights = heights.gather(0, first)[0].clamp(1, height)
    widths = widths.gather(0, first)[0].clamp(1, width)
    tops = (height - heights) * torch.rand(b, generator=generator)
    lefts = (width - widths) * torch.rand(b, generator=generator)
    return tops, lefts, heights, widths


def _weights(starts: Tensor, lengths: Tensor, n_in: int, n_out: int) -> Tensor:
    """Matrices (b, n_out, n_in) that resize pixels start .. start + length to n_out.

    Linear between pixels; where the crop shrinks, over as many pixels as fall into one.
    """
    steps = (lengths / n_out)[:, None]  # (b, 1)
    centres = starts[:, None] + (torch.arange(n_out) + 0.5) * steps
    distances = (torch.arange(n_in) + 0.5 - centres[:, :, None]).abs()
    weights = (1 - distances / steps[:, :, None].clamp(min=1)).clamp_(min=0)
    return weights / weights.sum(2, keepdim=True)


def _gaussians(sigmas: Tensor, size: int) -> Tensor:
    """Matrices (b, size, size) that blur along a line; the identity where sigma is 0."""
    places = torch.arange(size, dtype=torch.float32)
    squares = (places[:, None] - places).square()
    weights = (-squares / (2 * sigmas.square().clamp(min=1e-4))[:, None, None]).exp()
    return weights / weights.sum(2, keepdim=True)


def _resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """images (b, c, h, w) 0..255, rows (b or 1, s, h), columns (b or 1, s, w) -> (b, c, s, s)"""
    b, c, height, width = images.shape
    narrow = images.view(b, c * height, width) @ (columns / 255).transpose(1, 2)
    return rows[:, None] @ narrow.view(b, c, height, -1)


# ---- colours


def _recolour(views: Tensor, how: Augmentation, generator: Generator) -> Tensor:
    """Brightness, contrast, saturation, hue and gray, in this order, in one product.

    Values are cut to [0, 1] once, at the end, not after each of them.
    """
    b, c = views.shape[:2]
    jittered = torch.rand(b, generator=generator) < how.jitter

    def factors(strength: float) -> Tensor:
        drawn = _uniform(b, (max(0.0, 1 - strength), 1 + strength), generator)
        return torch.where(jittered, drawn, 1.0)[:, None, None].to(views.device)

    unit, gray = torch.eye(3, device=views.device), torch.tensor([GRAY] * 3, device=views.device)
    brightness, contrast, saturation = map(factors, (how.brightness, how.contrast, how.saturation))
    turns = torch.where(jittered, _uniform(b, (-how.hue, how.hue), generator), 0.0)
    colourless = torch.rand(b, generator=generator) < how.gray
    matrices = brightness * unit  # (b, 3, 3)
    means = views.mean((2, 3)).expand(b, 3)[:, :, None]
    shifts = (1 - contrast) * (gray @ (matrices @ means))  # (b, 3, 1)
    matrices = contrast * matrices
    last = (saturation * unit + (1 - saturation) * gray) @ _turns(turns).to(views.device)
    last = torch.where(colourless.to(views.device)[:, None, None], gray, last)
    matrices, shifts = last @ matrices, last @ shifts
    if c == 1:  # a gray image has three equal colours
        matrices, shifts = matrices.sum(2, keepdim=True)[:, :1], shifts[:, :1]
    return torch.baddbmm(shifts, matrices, views.flatten(2)).view(views.shape)


def _turns(turns: Tensor) -> Tensor:
    """Matrices (b, 3, 3) that turn the hues of RGB colours by so many full circles (b,)."""
    yiq = torch.tensor(YIQ)
    cosines, sines = (2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()
    rotations = torch.eye(3).repeat(len(turns), 1, 1)
    rotations[:, 1, 1] = rotations[:, 2, 2] = cosines
    rotations[:, 1, 2], rotations[:, 2, 1] = -sines, sines
    return yiq.inverse() @ rotations @ yiq
