"""Random views of a batch as products of matrices, each image with parameters of its own.

A crop, its resizing, mirroring and blurring are one matrix for the rows of an image and one for its
columns; all changes of color are one 3x3 matrix and a shift. What is drawn at random, and how
often, is decided by each paper.
"""

import math

import torch
from torch import Generator, Tensor

N_TRIES = 10  # at a random crop that fits into the image
ASPECT_RATIO = (3 / 4, 4 / 3)  # of a random crop, width to height
GRAY = (0.299, 0.587, 0.114)
# Luminance, and the two axes of color around which hues are rotated (YIQ).
YIQ = (GRAY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def uniform(n: int, bounds: tuple[float, float], generator: Generator) -> Tensor:
    """n random numbers (n,) between two bounds."""
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=generator)


# ---- geometry


def random_crops(
    b: int,
    h: int,
    w: int,
    scale: tuple[float, float],
    generator: Generator,
    ratio: tuple[float, float] = ASPECT_RATIO,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of random crops of images (h, w), in pixels, each (b,).

    scale: share of the image's area.
    """
    n = N_TRIES * b
    areas = h * w * uniform(n, scale, generator)
    ratios = uniform(n, (math.log(ratio[0]), math.log(ratio[1])), generator).exp()
    heights = (areas / ratios).sqrt().view(N_TRIES, b)
    widths = (areas * ratios).sqrt().view(N_TRIES, b)
    # the first try that fits, else the first one, clipped
    first = ((heights <= h) & (widths <= w)).float().argmax(0, keepdim=True)
    heights = heights.gather(0, first)[0].clamp(1, h)
    widths = widths.gather(0, first)[0].clamp(1, w)
    tops = (h - heights) * torch.rand(b, generator=generator)
    lefts = (w - widths) * torch.rand(b, generator=generator)
    return tops, lefts, heights, widths


def resize_matrices(starts: Tensor, steps: Tensor, sides: Tensor, n_out: int) -> Tensor:
    """Matrices (b, n_out, max(sides)) that sample n_out pixels, `steps` apart from `starts` on.

    starts, steps, sides (b,): in pixels of the image, whose side is given. Linear interpolation,
    antialiased where the view is smaller. Rows whose center lies outside the image are zero.
    """
    centers = starts[:, None] + (torch.arange(n_out) + 0.5) * steps[:, None]  # (b, n_out)
    positions = torch.arange(int(sides.max())) + 0.5
    distances = (positions - centers[:, :, None]).abs()
    matrices = (1 - distances / steps[:, None, None].clamp(min=1)).clamp_(min=0)
    matrices *= positions < sides[:, None, None]
    matrices /= matrices.sum(2, keepdim=True).clamp(min=1e-6)
    return matrices * ((centers >= 0) & (centers < sides[:, None]))[:, :, None]


def blur_matrices(sigmas: Tensor, size: int) -> Tensor:
    """Matrices (b, size, size) that blur along one axis; the identity where sigma (b,) is 0."""
    positions = torch.arange(size, dtype=torch.float32)
    squares = (positions[:, None] - positions).square()
    matrices = (-squares / (2 * sigmas.square().clamp(min=1e-4))[:, None, None]).exp()
    return matrices / matrices.sum(2, keepdim=True)


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """images (b, c, h, w), rows (b or 1, s, h), columns (b or 1, t, w) -> (b, c, s, t)"""
    b, c, h, w = images.shape
    narrow = images.reshape(b, c * h, w) @ columns.transpose(1, 2)
    return rows[:, None] @ narrow.view(b, c, h, -1)


# ---- color


def adjust_colors(
    images: Tensor,
    brightness: Tensor,
    contrast: Tensor,
    saturation: Tensor,
    hue: Tensor,
    grayscale: Tensor | None = None,
) -> Tensor:
    """Images (b, 1 or 3, h, w) in [0, 1], changed in this order in one product, not clipped.

    brightness, contrast, saturation (b,): factors, contrast around each image's own mean; hue (b,):
    rotation, 1 is a full circle; grayscale (b,) bool: images that lose their color.
    """
    b, c = images.shape[:2]
    device = images.device
    identity = torch.eye(3, device=device)
    gray = torch.tensor([GRAY] * 3, device=device)
    brightness, contrast, saturation = (
        factor.to(device)[:, None, None] for factor in (brightness, contrast, saturation)
    )
    means = images.mean((2, 3)).expand(b, 3)[:, :, None]
    last = (saturation * identity + (1 - saturation) * gray) @ hue_rotations(hue).to(device)
    if grayscale is not None:
        last = torch.where(grayscale.to(device)[:, None, None], gray, last)
    matrices = last @ (contrast * brightness * identity)  # (b, 3, 3)
    shifts = last @ ((1 - contrast) * (gray @ (brightness * means)))  # (b, 3, 1)
    if c == 1:  # a gray image is one of three equal channels
        matrices, shifts = matrices.sum(2, keepdim=True)[:, :1], shifts[:, :1]
    return torch.baddbmm(shifts, matrices, images.flatten(2)).view(images.shape)


def hue_rotations(hue: Tensor) -> Tensor:
    """Matrices (b, 3, 3) that rotate the hues of RGB colors; hue (b,): 1 is a full circle."""
    yiq = torch.tensor(YIQ)
    cosines, sines = (2 * math.pi * hue).cos(), (2 * math.pi * hue).sin()
    rotations = torch.eye(3).repeat(len(hue), 1, 1)
    rotations[:, 1, 1] = rotations[:, 2, 2] = cosines
    rotations[:, 1, 2], rotations[:, 2, 1] = -sines, sines
    return yiq.inverse() @ rotations @ yiq
