"""From common.datasets to batches on the device: the whole set is one uint8 tensor there."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from common import UserError, datasets
from dti_torch import config

SUBSET_SEED = 46  # the authors' seed for the 1,000 images of mnist_1k


def load(cfg: config.Dataset) -> datasets.Images:
    """The images that the config names, as `common.datasets.load`; raises UserError."""
    found = datasets.load(cfg.name, cfg.split, cfg.root, cfg.path, cfg.size, cfg.max_bad)
    if cfg.n_images is not None:
        found = _subset(found, cfg.n_images)
    found = add_margin(found, cfg.margin)
    if cfg.colorize:
        found = dataclasses.replace(found, images=colorize(found.images))
    return found


def _subset(found: datasets.Images, n: int) -> datasets.Images:
    if not 0 < n <= len(found.images):
        raise UserError(f"dataset.n_images is {n}, the data set has {len(found.images)}")
    keep = np.random.default_rng(SUBSET_SEED).choice(len(found.images), n, replace=False)
    return dataclasses.replace(
        found,
        images=found.images[keep],
        labels=None if found.labels is None else found.labels[keep],
        paths=[found.paths[i] for i in keep],
    )


def add_margin(found: datasets.Images, margin: int) -> datasets.Images:
    """The same images with `margin` black pixels on every side."""
    sides = [(0, 0), (margin, margin), (margin, margin), (0, 0)]
    return dataclasses.replace(found, images=np.pad(found.images, sides)) if margin else found


def colorize(images: np.ndarray) -> np.ndarray:
    """Gray images (n, h, w, 1) in random colours (n, h, w, 3): |gain x + bias|, maximum 255.

    gain ~ U(-1, 1), bias ~ U(0, 1) for each image and channel, always the same for the same index.
    """
    if images.shape[3] != 1:
        raise UserError(f"dataset.colorize is for gray images, found {images.shape[3]} channels")
    random = np.random.default_rng(SUBSET_SEED).random((len(images), 2, 1, 1, 3), np.float32)
    gain, bias = 2 * random[:, 0] - 1, random[:, 1]
    out = np.empty((*images.shape[:3], 3), np.uint8)
    for i in range(len(images)):  # one at a time: no float copy of the set
        color = np.abs(gain[i] * (images[i] / np.float32(255)) + bias[i])
        out[i] = np.round(255 * color / color.max())
    return out


def to_device(images: np.ndarray, device: torch.device) -> Tensor:
    """(n, h, w, c) -> (n, c, h, w) on the device"""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 0..1; floats, which only the estimator has, stay as they are"""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def batches(
    images: Tensor, batch_size: int, seed: int, epoch: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Float batches (b, c, h, w) of one epoch in random order, and their indices (b,).

    Starts at batch number `first`. The order depends on seed and epoch alone, so that a resumed
    epoch goes on where it stopped. A last batch of a single image joins the one before: batch norm
    cannot learn from one.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(images), generator=generator).to(images.device)
    for start, end in list(bounds(len(images), batch_size))[first:]:
        yield to_float(images[order[start:end]]), order[start:end]


def bounds(n: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Where each batch of n images starts and ends."""
    for start in range(0, n, batch_size):
        if n - start > 1 or start == 0:
            end = min(start + batch_size, n)
            yield start, end + 1 if n - end == 1 else end
