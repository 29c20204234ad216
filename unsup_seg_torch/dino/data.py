"""Images for DINO, and the multi-crop views of a batch: two global, several local (appendix B)."""

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from common import UserError, datasets, images
from common.pytorch.augment import (
    adjust_colors,
    blur_matrices,
    random_crops,
    resample,
    resize_matrices,
    uniform,
)
from common.pytorch.random import seeded_generator
from unsup_seg_torch.dino import config

log = logging.getLogger("unsup_seg_torch.dino.data")

# Probabilities of jitter and grayscale; of solarization, for the second global view.
P_JITTER, P_GRAY, P_SOLARIZE = 0.8, 0.2, 0.2
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
SIGMA = (0.1, 2.0)  # of the blur, in pixels of a view of any size
P_BLUR = (1.0, 0.1, 0.5)  # of the first and second global view, and of the local views


def load(cfg: config.Dataset, split: str | None = None) -> datasets.Images:
    """The images that a config names, in RGB; raises UserError."""
    split = cfg.split if split is None else split
    dataset = datasets.load(cfg.name, split, cfg.root, cfg.path, cfg.size, cfg.max_bad)
    n = len(dataset.paths)
    if cfg.n_images and cfg.n_images < n:
        dataset = subset(dataset, np.linspace(0, n - 1, cfg.n_images).round().astype(int))
    return dataclasses.replace(dataset, images=images.to_channels(dataset.images, 3))


def subset(dataset: datasets.Images, rows: np.ndarray) -> datasets.Images:
    return dataclasses.replace(
        dataset,
        images=dataset.images[rows],
        labels=None if dataset.labels is None else dataset.labels[rows],
        paths=[dataset.paths[i] for i in rows],
    )


def check(dataset: datasets.Images) -> None:
    """Raises UserError for too few images."""
    n = len(dataset.paths)
    if n < 2:
        raise UserError(f"the dataset has {n} image: DINO needs at least two")


def n_batches(training: config.Training, n_images: int) -> int:
    """Batches of an epoch; an incomplete last batch is dropped unless it is the only one."""
    return max(n_images // training.batch_size, 1)


def batches(
    pixels: np.ndarray, training: config.Training, epoch: int, first: int = 0
) -> Iterator[list[Tensor]]:
    """The views of each batch of one epoch, from batch `first`; pixels uint8 (n, h, w, 3).

    They depend only on seed, epoch and batch, so that a resumed epoch continues exactly.
    """
    n, size, seed = len(pixels), training.batch_size, training.seed
    order = torch.randperm(n, generator=seeded_generator(seed, epoch, 0)).numpy()
    for batch in range(first, n_batches(training, n)):
        chosen = order[batch * size : (batch + 1) * size]
        batch_pixels = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).float()
        yield multi_crop(batch_pixels, training, seeded_generator(seed, epoch, batch + 1))


def multi_crop(pixels: Tensor, training: config.Training, generator: Generator) -> list[Tensor]:
    """Images (b, 3, h, w) of 0 to 255 -> views (b, 3, s, s) in [0, 1]: 2 global, n_small local."""
    kinds = [(training.large, training.large_scale, i) for i in (0, 1)]
    kinds += [(training.small, training.small_scale, 2)] * training.n_small
    return [view(pixels, training, size, scale, i, generator) for size, scale, i in kinds]


def view(
    pixels: Tensor,
    training: config.Training,
    size: int,
    scale: tuple[float, float],
    kind: int,
    generator: Generator,
) -> Tensor:
    """One random view of each image; kind 0 and 1: first and second global view, 2: local."""
    # paper: bicubic. Ours is linear and antialiased: then crop, flip and blur are one matrix
    b, _, h, w = pixels.shape
    tops, lefts, heights, widths = random_crops(b, h, w, scale, generator)
    ones = torch.ones(b, dtype=torch.int64)
    rows = resize_matrices(tops, heights / size, h * ones, size)
    columns = resize_matrices(lefts, widths / size, w * ones, size)
    flipped = torch.rand(b, generator=generator) < 0.5 * training.flip
    columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    if training.blur:
        blurred = torch.rand(b, generator=generator) < P_BLUR[kind]
        sigmas = training.blur * uniform(b, SIGMA, generator)
        blurs = blur_matrices(torch.where(blurred, sigmas, 0.0), size)
        rows, columns = blurs @ rows, blurs @ columns
    views = resample(pixels, rows, columns / 255)
    if training.color:
        views = jitter_colors(views, training.color, kind, generator)
    return views.clamp_(0, 1)


def jitter_colors(views: Tensor, strength: float, kind: int, generator: Generator) -> Tensor:
    """Color jitter and grayscale of views (b, 3, s, s); kind 1 is also solarized at random."""
    b = len(views)
    jittered = torch.rand(b, generator=generator) < P_JITTER
    limits = [min(each * strength, 1) for each in (BRIGHTNESS, CONTRAST, SATURATION)]
    brightness, contrast, saturation = (
        torch.where(jittered, 1 + limit * uniform(b, (-1, 1), generator), 1.0) for limit in limits
    )
    hue = uniform(b, (-HUE * strength, HUE * strength), generator)
    is_gray = torch.rand(b, generator=generator) < P_GRAY
    saturation = torch.where(is_gray, 0.0, saturation)
    hue = torch.where(jittered, hue, 0.0)
    views = adjust_colors(views.clamp(0, 1), brightness, contrast, saturation, hue).clamp_(0, 1)
    if kind == 1:
        is_solarized = torch.rand(b, generator=generator) < P_SOLARIZE
        inverted = torch.where(views >= 0.5, 1 - views, views)
        views = torch.where(is_solarized[:, None, None, None], inverted, views)
    return views
