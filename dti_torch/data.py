"""Datasets and batches; the whole dataset is one uint8 tensor on the device."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from common import UserError, datasets
from common.pytorch.random import seeded_generator
from dti_torch import config

SUBSET_SEED = 46  # the authors' seed for the 1,000 images of mnist_1k


def load(cfg: config.Dataset) -> datasets.Images:
    """The images of the config, see `common.datasets.load`; raises UserError."""
    dataset = datasets.load(cfg.name, cfg.split, cfg.root, cfg.path, cfg.size, cfg.max_bad)
    if cfg.n_images is not None:
        dataset = _subset(dataset, cfg.n_images)
    dataset = add_margin(dataset, cfg.margin)
    if cfg.colorize:
        dataset = dataclasses.replace(dataset, images=colorize(dataset.images))
    return dataset


def _subset(dataset: datasets.Images, n: int) -> datasets.Images:
    if n > len(dataset.images):
        raise UserError(f"dataset.n_images is {n}: the dataset has {len(dataset.images)} images")
    chosen = np.random.default_rng(SUBSET_SEED).choice(len(dataset.images), n, replace=False)
    return dataclasses.replace(
        dataset,
        images=dataset.images[chosen],
        labels=None if dataset.labels is None else dataset.labels[chosen],
        paths=[dataset.paths[i] for i in chosen],
    )


def add_margin(dataset: datasets.Images, margin: int) -> datasets.Images:
    """Pads the images with `margin` black pixels on every side."""
    sides = [(0, 0), (margin, margin), (margin, margin), (0, 0)]
    return dataclasses.replace(dataset, images=np.pad(dataset.images, sides)) if margin else dataset


def colorize(images: np.ndarray) -> np.ndarray:
    """Gray images (n, h, w, 1) in random colors (n, h, w, 3): |gain x + bias|, with maximum 255.

    gain ~ U(-1, 1) and bias ~ U(0, 1) per image and channel depend on the image's index only.
    """
    if images.shape[3] != 1:
        raise UserError(f"dataset.colorize is for gray images, found {images.shape[3]} channels")
    random = np.random.default_rng(SUBSET_SEED).random((len(images), 2, 1, 1, 3), np.float32)
    gain, bias = 2 * random[:, 0] - 1, random[:, 1]
    out = np.empty((*images.shape[:3], 3), np.uint8)
    for i in range(len(images)):  # one at a time: no float copy of the dataset
        color = np.abs(gain[i] * (images[i] / np.float32(255)) + bias[i])
        out[i] = np.round(255 * color / color.max())
    return out


def to_device(images: np.ndarray, device: torch.device) -> Tensor:
    """(n, h, w, c) -> (n, c, h, w) on the device"""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 0..1; floats, which only the estimator uses, are unchanged"""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def batches(
    images: Tensor, batch_size: int, seed: int, epoch: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled float batches (b, c, h, w) of one epoch from batch `first` on, and indices (b,).

    The order depends on seed and epoch only, so that a resumed epoch continues where it stopped. A
    last batch of one image is merged into the previous one: batch norm needs more than one.
    """
    generator = seeded_generator(seed, epoch)
    order = torch.randperm(len(images), generator=generator).to(images.device)
    for start, end in list(batch_bounds(len(images), batch_size))[first:]:
        yield to_float(images[order[start:end]]), order[start:end]


def batch_bounds(n: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Start and end of each batch of n images."""
    for start in range(0, n, batch_size):
        if n - start > 1 or start == 0:
            end = min(start + batch_size, n)
            yield start, end + 1 if n - end == 1 else end
