"""Images for DINO, and the views of a batch: two large ones, several small ones (appendix B)."""

import dataclasses
import logging
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from common import UserError, datasets
from unsup_seg_torch import views
from unsup_seg_torch.dino import config

log = logging.getLogger("unsup_seg_torch.dino.data")

N_TRIES = 10  # at a crop that fits into the image
RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height
JITTER, GRAY, SOLARISED = 0.8, 0.2, 0.2  # shares of the views; solarised: of the second large ones
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
SIGMA, BLUR_SIZE = (0.1, 2.0), 224  # of the blur, in pixels of a view of 224
BLURRED = (1.0, 0.1, 0.5)  # shares: of the first and second large views, of the small ones


def load(cfg: config.Dataset, split: str | None = None) -> datasets.Images:
    """The images that a config names, in three colours; raises UserError."""
    split = cfg.split if split is None else split
    found = datasets.load(cfg.name, split, cfg.root, cfg.path, cfg.size, cfg.max_bad)
    if cfg.n_images and cfg.n_images < len(found.paths):
        found = subset(
            found, np.linspace(0, len(found.paths) - 1, cfg.n_images).round().astype(int)
        )
    if found.images.shape[3] == 1:
        found = dataclasses.replace(found, images=found.images.repeat(3, axis=3))
    return found


def subset(found: datasets.Images, rows: np.ndarray) -> datasets.Images:
    return dataclasses.replace(
        found,
        images=found.images[rows],
        labels=None if found.labels is None else found.labels[rows],
        paths=[found.paths[i] for i in rows],
    )


def n_batches(cfg: config.Training, n: int) -> int:
    """Of an epoch over n images; a last one that is not full is left out, but for the only one."""
    return max(n // cfg.batch_size, 1)


def batches(
    pictures: np.ndarray, cfg: config.Config, epoch: int, first: int = 0
) -> Iterator[list[Tensor]]:
    """The views of each batch of one epoch from batch `first` on; pictures uint8 (n, h, w, 3).

    What they are depends on seed, epoch and number of the batch alone.
    """
    training, n = cfg.training, len(pictures)
    order = torch.randperm(n, generator=_generator(training, epoch, 0)).numpy()
    for batch in range(first, n_batches(training, n)):
        chosen = order[batch * training.batch_size : (batch + 1) * training.batch_size]
        shown = torch.from_numpy(pictures[chosen]).permute(0, 3, 1, 2).float()
        yield multi_crop(shown, training, _generator(training, epoch, batch + 1))


def _generator(cfg: config.Training, epoch: int, batch: int) -> Generator:
    seed = (cfg.seed * 1_000_003 + epoch) * 1_000_003 + batch
    return Generator().manual_seed(seed % 2**63)


def multi_crop(images: Tensor, cfg: config.Training, generator: Generator) -> list[Tensor]:
    """Images (b, 3, h, w) of 0 to 255 -> views (b, 3, s, s) in [0, 1]: two large, n_small small."""
    kinds = [(cfg.large, cfg.large_scale, i) for i in (0, 1)]
    kinds += [(cfg.small, cfg.small_scale, 2)] * cfg.n_small
    return [view(images, cfg, size, scale, i, generator) for size, scale, i in kinds]


def view(
    images: Tensor,
    cfg: config.Training,
    size: int,
    scale: tuple[float, float],
    kind: int,
    generator: Generator,
) -> Tensor:
    """One random view of each; kind 0 and 1: the large ones, 2: a small one."""
    # paper: bicubic. Ours is linear and antialiased: then crop, mirror and blur are one matrix
    b, _, h, w = images.shape
    tops, lefts, heights, widths = crops(b, h, w, scale, generator)
    one = torch.ones(b, dtype=torch.int64)
    rows = views.weights(tops, heights / size, h * one, size)
    columns = views.weights(lefts, widths / size, w * one, size)
    flipped = torch.rand(b, generator=generator) < 0.5 * cfg.flip
    columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    if cfg.blur:
        blurred = torch.rand(b, generator=generator) < BLURRED[kind]
        sigmas = cfg.blur * views.uniform(b, SIGMA, generator) * size / BLUR_SIZE
        blurs = gaussians(torch.where(blurred, sigmas, 0.0), size)
        rows, columns = blurs @ rows, blurs @ columns
    shown = views.resample(images, rows, columns / 255)
    if cfg.colour:
        shown = recolour(shown, cfg.colour, kind, generator)
    return shown.clamp_(0, 1)


def crops(
    b: int, h: int, w: int, scale: tuple[float, float], generator: Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of random crops, in pixels, each (b,)."""
    n = N_TRIES * b
    areas = h * w * views.uniform(n, scale, generator)
    ratios = views.uniform(n, (math.log(RATIO[0]), math.log(RATIO[1])), generator).exp()
    heights, widths = (
        (areas / ratios).sqrt().view(N_TRIES, b),
        (areas * ratios).sqrt().view(N_TRIES, b),
    )
    # the first try that fits, else the first one cut to fit
    first = ((heights <= h) & (widths <= w)).float().argmax(0, keepdim=True)
    heights = heights.gather(0, first)[0].clamp(1, h)
    widths = widths.gather(0, first)[0].clamp(1, w)
    tops = (h - heights) * torch.rand(b, generator=generator)
    lefts = (w - widths) * torch.rand(b, generator=generator)
    return tops, lefts, heights, widths


def gaussians(sigmas: Tensor, size: int) -> Tensor:
    """Matrices (b, size, size) that blur along a line; the identity where sigma is 0."""
    places = torch.arange(size, dtype=torch.float32)
    squares = (places[:, None] - places).square()
    found = (-squares / (2 * sigmas.square().clamp(min=1e-4))[:, None, None]).exp()
    return found / found.sum(2, keepdim=True)


def recolour(shown: Tensor, strength: float, kind: int, generator: Generator) -> Tensor:
    """Jitter and gray of views (b, 3, s, s) in [0, 1]; the second large view also solarised."""
    b = len(shown)
    jittered = torch.rand(b, generator=generator) < JITTER
    limits = [min(each * strength, 1) for each in (BRIGHTNESS, CONTRAST, SATURATION)]
    brightness, contrast, saturation = (
        torch.where(jittered, 1 + limit * views.uniform(b, (-1, 1), generator), 1.0)
        for limit in limits
    )
    hue = views.uniform(b, (-HUE * strength, HUE * strength), generator)
    colourless = torch.rand(b, generator=generator) < GRAY
    saturation = torch.where(colourless, 0.0, saturation)
    shown = views.recolour(
        shown.clamp(0, 1), brightness, contrast, saturation, torch.where(jittered, hue, 0.0)
    )
    if kind == 1:
        solarised = torch.rand(b, generator=generator) < SOLARISED
        inverted = torch.where(shown >= 0.5, 1 - shown, shown)
        shown = torch.where(solarised[:, None, None, None], inverted, shown)
    return shown


def check(cfg: config.Config, found: datasets.Images) -> None:
    """Raises UserError where there is nothing to learn from."""
    if len(found.paths) < 2:
        raise UserError(f"there is only {len(found.paths)} image: DINO needs two")
