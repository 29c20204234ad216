"""What the network sees of an image: its center, or random crops as the config describes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from common.pytorch import augment as matrices
from deepcluster_torch import config
from deepcluster_torch.data.batches import INFERENCE_BATCH, batches

SIGMA = (0.1, 2.0)  # of the blur, in pixels of a large crop of BLUR_SIZE pixels
BLUR_SIZE = 224


@dataclass(frozen=True)
class Augmentation:
    """How to draw a random view. Strengths and probabilities of 0 switch a part off."""

    size: int  # side of the square view in pixels
    scale: tuple[float, float] = (0.08, 1.0)  # area of the crop, as a fraction of the image
    ratio: tuple[float, float] = matrices.ASPECT_RATIO  # of the crop, width to height
    flip: float = 0.5  # probability of mirroring
    brightness: float = 0.0  # x: a factor between 1 - x and 1 + x
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # x: a rotation between -x and x, where 1 is a full circle
    jitter: float = 0.8  # probability of changing these four
    gray: float = 0.0  # probability of removing the color
    blur: float = 0.0  # probability of blurring
    sigma: tuple[float, float] = SIGMA  # of the blur, in pixels of the view


def augment(images: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    """A random view of each image uint8 (b, c, h, w): float (b, c, size, size) in [0, 1].

    The generator is on the CPU, so that all devices draw the same views.
    """
    return _random_view(_to_float(images), augmentation, generator)


def multi_crop(
    images: Tensor, augmentations: Sequence[Augmentation], generator: Generator
) -> list[Tensor]:
    """One random view per augmentation of each image, as from `augment`."""
    floats = _to_float(images)
    return [_random_view(floats, augmentation, generator) for augmentation in augmentations]


def center_crop(images: Tensor, size: int, fraction: float = 1.0) -> Tensor:
    """The center of images uint8 (b, c, h, w): float (b, c, size, size) in [0, 1].

    fraction: of each side. The paper crops 224 of 256 pixels, 0.875.
    """
    h, w = images.shape[2:]
    columns, rows = (
        _resize_matrices(
            torch.tensor([n * (1 - fraction) / 2]), torch.tensor([n * fraction]), n, size
        )
        for n in (w, h)
    )
    return _resample(_to_float(images), rows, columns)


# ---- views as the config describes them


def input_side(model_cfg: config.Model, height: int, width: int) -> int:
    """Side in pixels of the square that the network sees of images (height, width)."""
    return model_cfg.input_size or min(height, width)


def center_crops(images: np.ndarray, cfg: config.Config, device: torch.device) -> Iterator[Tensor]:
    """The centers of images uint8 (n, h, w, c) in batches float (b, c, s, s) in [0, 1]."""
    size = input_side(cfg.model, *images.shape[1:3])
    with tqdm(total=len(images), desc="features", unit="image", disable=None, leave=False) as bar:
        for batch, _ in batches(images, INFERENCE_BATCH):
            yield center_crop(batch.to(device), size, cfg.model.center_crop)
            bar.update(len(batch))


def large_crop(cfg: config.Config, images: Tensor) -> Augmentation:
    """Crops of images (b, c, h, w) in the size that the network takes."""
    size = input_side(cfg.model, *images.shape[2:])
    return _augmentation(cfg.training, size, cfg.training.crop_scale, size)


def small_crop(cfg: config.Config, images: Tensor) -> Augmentation:
    """Small crops of images (b, c, h, w), for v2."""
    large_size = input_side(cfg.model, *images.shape[2:])
    size = cfg.training.small_size or max(1, large_size // 2)
    return _augmentation(cfg.training, size, cfg.training.small_crop_scale, large_size)


def _augmentation(
    training: config.Training, size: int, scale: tuple[float, float], large_size: int
) -> Augmentation:
    """large_size: side of the large crops; small ones are blurred by as many pixels."""
    low, high = (sigma * large_size / BLUR_SIZE for sigma in SIGMA)
    return Augmentation(
        size=size,
        scale=scale,
        flip=0.5 * training.flip,
        brightness=0.8 * training.jitter,  # proportions as in SimCLR
        contrast=0.8 * training.jitter,
        saturation=0.8 * training.jitter,
        hue=0.2 * training.jitter,
        gray=training.gray,
        blur=training.blur,
        sigma=(low, high),
    )


# ---- drawing


def _to_float(images: Tensor) -> Tensor:
    return images.to(torch.float32, memory_format=torch.contiguous_format)


def _random_view(images: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    """Images float (b, c, h, w) in [0, 255] -> views (b, c, size, size) in [0, 1]."""
    b, _, h, w = images.shape
    size = augmentation.size
    tops, lefts, heights, widths = matrices.random_crops(
        b, h, w, augmentation.scale, generator, augmentation.ratio
    )
    columns = _resize_matrices(lefts, widths, w, size)  # (b, size, w)
    flipped = torch.rand(b, generator=generator) < augmentation.flip
    columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    rows = _resize_matrices(tops, heights, h, size)  # (b, size, h)
    if augmentation.blur:
        blurred = torch.rand(b, generator=generator) < augmentation.blur
        sigmas = matrices.uniform(b, augmentation.sigma, generator)
        blurs = matrices.blur_matrices(torch.where(blurred, sigmas, 0.0), size)
        rows, columns = blurs @ rows, blurs @ columns
    views = _resample(images, rows, columns)
    jitter = augmentation.brightness, augmentation.contrast, augmentation.saturation
    if any(jitter) or augmentation.hue or augmentation.gray:
        views = _jitter_colors(views, augmentation, generator)
    return views.clamp_(0, 1)


def _resize_matrices(starts: Tensor, lengths: Tensor, n_in: int, n_out: int) -> Tensor:
    """Matrices (b or 1, n_out, n_in) that resize pixels start .. start + length to n_out pixels."""
    sides = torch.full_like(lengths, n_in)
    return matrices.resize_matrices(starts, lengths / n_out, sides, n_out)


def _resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (b, c, h, w) in [0, 255] -> (b, c, s, s) in [0, 1]."""
    device = images.device
    return matrices.resample(images, rows.to(device), (columns.to(device) / 255))


def _jitter_colors(views: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    b = len(views)
    jittered = torch.rand(b, generator=generator) < augmentation.jitter

    def factors(strength: float) -> Tensor:
        drawn = matrices.uniform(b, (max(0.0, 1 - strength), 1 + strength), generator)
        return torch.where(jittered, drawn, 1.0)

    strengths = augmentation.brightness, augmentation.contrast, augmentation.saturation
    brightness, contrast, saturation = map(factors, strengths)
    hue = matrices.uniform(b, (-augmentation.hue, augmentation.hue), generator)
    hue = torch.where(jittered, hue, 0.0)
    gray = torch.rand(b, generator=generator) < augmentation.gray
    return matrices.adjust_colors(views, brightness, contrast, saturation, hue, gray)
