"""Draws images: grids, palettes, overlays, contours."""

import colorsys
import math

import numpy as np
from numpy.typing import ArrayLike

from common.images.arrays import to_uint8


def grid(
    images: ArrayLike, n_columns: int | None = None, pad: int = 2, scale: int = 1
) -> np.ndarray:
    """Images (n, h, w[, c]) in rows on white, as one uint8 image, about square by default.

    pad: pixels between images; scale: repeats of every pixel, to keep small images sharp.
    """
    images = to_uint8(images)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    n, h, w = images.shape[:3]
    n_columns = min(n_columns or math.ceil(math.sqrt(n)), n)
    n_rows = math.ceil(n / n_columns)
    size = (n_rows * (h + pad) - pad, n_columns * (w + pad) - pad, *images.shape[3:])
    canvas = np.full(size, 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // n_columns * (h + pad), i % n_columns * (w + pad)
        canvas[y : y + h, x : x + w] = image
    return canvas


def sheet(rows: list[list[np.ndarray]], gap: int = 4) -> np.ndarray:
    """uint8 images (h, w[, 3]) of any sizes as a table on white; rows of equal length."""
    widths = [max(image.shape[1] for image in column) for column in zip(*rows, strict=True)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    size = sum(heights) + gap * (len(heights) - 1), sum(widths) + gap * (len(widths) - 1)
    canvas = np.full((*size, 3), 255, np.uint8)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for image, width in zip(row, widths, strict=True):
            rgb = image if image.ndim == 3 else image[..., None]
            canvas[y : y + image.shape[0], x : x + image.shape[1]] = rgb
            x += width + gap
        y += height + gap
    return canvas


def palette(n: int) -> np.ndarray:
    """n distinct colors (n, 3) uint8; the first ones do not depend on n."""
    # Hues in steps of the golden ratio are spread evenly for every n.
    shades = [(0.65, 0.90), (0.90, 0.65), (0.40, 0.95), (0.70, 0.45)]
    colors = [colorsys.hsv_to_rgb(i * 0.618034 % 1, *shades[i // 8 % 4]) for i in range(n)]
    return to_uint8(np.reshape(colors, (n, 3)))


def overlay(image: np.ndarray, labels: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Image (h, w[, c]) blended with the palette colors of labels (h, w); below 0: not blended."""
    image = to_uint8(image)
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.broadcast_to(image.reshape(*labels.shape, 1), (*labels.shape, 3))
    colors = palette(max(int(labels.max(initial=0)) + 1, 1))[np.maximum(labels, 0)]
    tinted = np.rint((1 - alpha) * image + alpha * colors).astype(np.uint8)
    return np.where(labels[..., None] < 0, image, tinted)


def mean_colors(rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean color of each label from 0 to the largest: (n, 3) uint8, black for unused labels.

    rgb (h, w, 3) uint8, labels (h, w).
    """
    flat = labels.ravel()
    sizes = np.maximum(np.bincount(flat), 1)
    sums = [np.bincount(flat, rgb[..., c].ravel()) for c in range(3)]
    return np.rint(np.stack(sums, 1) / sizes[:, None]).astype(np.uint8)


def contours(rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Image (h, w, 3) with the boundaries of labels (h, w) in yellow and black."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    shadow = np.zeros_like(edge)
    shadow[:, :-1] |= edge[:, 1:]
    shadow[:-1] |= edge[1:]
    drawn = rgb.copy()
    drawn[shadow] = (0, 0, 0)
    drawn[edge] = (255, 230, 0)
    return drawn
