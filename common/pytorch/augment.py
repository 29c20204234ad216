"""Augmentation of a batch by batched matrix products, with different parameters for each image.

Cropping, resizing, mirroring and blurring are one matrix for the rows of an image and one for its
columns; all color changes are one 3x3 matrix and a shift. The papers choose the distributions.
"""

import math

import torch
from torch import Generator, Tensor

N_TRIES = 10  # to draw a crop that fits into the image
ASPECT_RATIO = (3 / 4, 4 / 3)  # range of width / height of a crop
GRAY = (0.299, 0.587, 0.114)  # luminance of RGB
# From RGB to luminance and two color axes; hues are rotated in the plane of the two.
YIQ = (GRAY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def uniform(n: int, bounds: tuple[float, float], generator: Generator) -> Tensor:
    """n random numbers (n,), uniform between the bounds."""
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
    """Top, left, height and width of b random crops of images (h, w), in pixels, each (b,).

    scale: range of the area, as a fraction of the image; ratio: range of width / height. Crops that
    do not fit are drawn again, N_TRIES times at most, then clipped.
    """
    n = N_TRIES * b
    areas = h * w * uniform(n, scale, generator)
    ratios = uniform(n, (math.log(ratio[0]), math.log(ratio[1])), generator).exp()
    heights = (areas / ratios).sqrt().view(N_TRIES, b)
    widths = (areas * ratios).sqrt().view(N_TRIES, b)
    # the first try that fits, else the first, clipped
    first = ((heights <= h) & (widths <= w)).float().argmax(0, keepdim=True)
    heights = heights.gather(0, first)[0].clamp(1, h)
    widths = widths.gather(0, first)[0].clamp(1, w)
    tops = (h - heights) * torch.rand(b, generator=generator)
    lefts = (w - widths) * torch.rand(b, generator=generator)
    return tops, lefts, heights, widths


def resize_matrices(starts: Tensor, steps: Tensor, sides: Tensor, n_out: int) -> Tensor:
    """Matrices (b, n_out, max(sides)) that crop and resize one axis of each image.

    starts (b,): first coordinate of the crop; steps (b,): distance of output pixels; sides (b,):
    length of the axis; all in pixels of the image. Bilinear, antialiased when downsampling. Output
    pixels outside the image are 0.
    """
    centers = starts[:, None] + (torch.arange(n_out) + 0.5) * steps[:, None]  # (b, n_out)
    positions = torch.arange(int(sides.max())) + 0.5
    distances = (positions - centers[:, :, None]).abs()
    matrices = (1 - distances / steps[:, None, None].clamp(min=1)).clamp_(min=0)
    matrices *= positions < sides[:, None, None]
    matrices /= matrices.sum(2, keepdim=True).clamp(min=1e-6)
    return matrices * ((centers >= 0) & (centers < sides[:, None]))[:, :, None]


def blur_matrices(sigmas: Tensor, size: int) -> Tensor:
    """Matrices (b, size, size) of a Gaussian blur along one axis.

    sigmas (b,): in pixels; 0 gives the identity.
    """
    positions = torch.arange(size, dtype=torch.float32)
    squares = (positions[:, None] - positions).square()
    matrices = (-squares / (2 * sigmas.square().clamp(min=1e-4))[:, None, None]).exp()
    return matrices / matrices.sum(2, keepdim=True)


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Applies matrices to the rows and columns of images.

    images (b, c, h, w), rows (b or 1, s, h), columns (b or 1, t, w) -> (b, c, s, t)
    """
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
    """Adjusts the colors of images (b, 1 or 3, h, w) in [0, 1], in this order, without clipping.

    brightness, contrast (around the mean gray of the image), saturation (b,): factors; hue (b,):
    rotation, 1 is a full circle; grayscale (b,) bool: images to convert to gray.
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
    if c == 1:  # as for three equal channels
        matrices, shifts = matrices.sum(2, keepdim=True)[:, :1], shifts[:, :1]
    return torch.baddbmm(shifts, matrices, images.flatten(2)).view(images.shape)


def hue_rotations(hue: Tensor) -> Tensor:
    """Matrices (b, 3, 3) that rotate the hue of RGB colors; hue (b,): 1 is a full circle."""
    yiq = torch.tensor(YIQ)
    cosines, sines = (2 * math.pi * hue).cos(), (2 * math.pi * hue).sin()
    rotations = torch.eye(3).repeat(len(hue), 1, 1)
    rotations[:, 1, 1] = rotations[:, 2, 2] = cosines
    rotations[:, 1, 2], rotations[:, 2, 1] = -sines, sines
    return yiq.inverse() @ rotations @ yiq
