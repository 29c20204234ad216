"""Sizes, channels, types and names of images as arrays."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps


def resize(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes uint8 (h, w[, c]) to (size, size), cropping the longer side around the center.

    A pair (h, w) is the exact new size, without regard to the aspect ratio.
    """
    squeezed = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    pil = Image.fromarray(squeezed)
    # Bilinear, as in the loaders of the papers; antialiased in Pillow.
    if isinstance(size, int):
        pil = ImageOps.fit(pil, (size, size), Image.Resampling.BILINEAR)
    else:
        pil = pil.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    resized = np.array(pil)
    return resized[..., None] if squeezed is not image else resized


def fit_within(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """A size (h, w) scaled down until the longer side is max_side; None: as it is."""
    scale = min(1.0, (max_side or max(size)) / max(size))
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def shrink(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """Scales uint8 (h, w[, c]) down until the longer side is max_side; None: as it is."""
    size = fit_within(image.shape[:2], max_side)
    return image if size == image.shape[:2] else resize(image, size)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (h, w) at another size (h, w), of the nearest pixels."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]


def to_channels(pixels: np.ndarray, n_channels: int) -> np.ndarray:
    """Converts uint8 images (n, h, w, 1 or 3) to gray or RGB: (n, h, w, n_channels)."""
    if pixels.shape[3] < n_channels:
        return pixels.repeat(n_channels, axis=3)
    if pixels.shape[3] > n_channels:
        gray = pixels @ np.array([[0.299], [0.587], [0.114]])  # ITU-R 601, as in Pillow
        return np.round(gray).astype(np.uint8)
    return pixels


def to_uint8(array: ArrayLike) -> np.ndarray:
    """Values in [0, 1] as uint8, clipped, NaN as 0; uint8 is returned as it is."""
    array = np.asarray(array)
    if array.dtype == np.uint8:
        return array
    return np.rint(np.clip(np.nan_to_num(array.astype(np.float32)), 0, 1) * 255).astype(np.uint8)


def unique_names(paths: Iterable[Path]) -> list[str]:
    """A unique file name without suffix for each path, valid on any file system."""
    names: list[str] = []
    used: set[str] = set()
    for i, path in enumerate(paths):
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in path.stem)[:80] or "_"
        while name.lower() in used:
            name = f"{name}_{i}"
        names.append(name)
        used.add(name.lower())
    return names


def is_single_image(X: ArrayLike | Sequence[ArrayLike]) -> bool:
    """Whether X is a single image (h, w, 3) instead of several."""
    return not isinstance(X, list | tuple) and np.ndim(X) == 3


def as_image_list(X: ArrayLike | Sequence[ArrayLike]) -> list[np.ndarray]:
    """Converts an image, or several of any sizes, to a list of uint8 (h, w, 3).

    Images are uint8, or floats in [0, 1]. Raises ValueError for anything else.
    """
    arrays = [np.asarray(image) for image in ([X] if is_single_image(X) else X)]
    if not arrays:
        raise ValueError("X is empty: expected one or more images (h, w, 3)")
    for i, image in enumerate(arrays):
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image {i} of X is {image.shape}: expected (h, w, 3)")
        if image.dtype != np.uint8:
            if image.dtype.kind != "f" or not (0 <= image.min() and image.max() <= 1):
                raise ValueError(
                    f"image {i} of X is {image.dtype}: expected uint8, or floats in [0, 1]"
                )
            arrays[i] = np.rint(image * 255).astype(np.uint8)
    return arrays
