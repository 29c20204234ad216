"""What the network is shown of an image: its middle, or random crops as the config has them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from deepcluster_torch import augment, config, data

BATCH = 256  # images that are seen at once, everywhere: another number would round differently


def side(cfg: config.Model, height: int, width: int) -> int:
    """Pixels of a side of what the network sees: a square of the images' shorter side."""
    return cfg.input_size or min(height, width)


def centres(images: np.ndarray, cfg: config.Model, device: torch.device) -> Iterator[Tensor]:
    """The middle of each image of (n, h, w, c), float (b, c, s, s) in [0, 1], in order."""
    size = side(cfg, *images.shape[1:3])
    with tqdm(total=len(images), desc="features", unit="image", disable=None, leave=False) as bar:
        for batch, _ in data.batches(images, BATCH):
            yield augment.centre(batch.to(device), size, cfg.centre)
            bar.update(len(batch))


def large(cfg: config.Config, images: Tensor) -> augment.Augmentation:
    """A random view of images (b, c, h, w), of the size that the network takes."""
    size = side(cfg.model, *images.shape[2:])
    return _view(cfg.training, size, cfg.training.crop_scale)


def small(cfg: config.Config, images: Tensor) -> augment.Augmentation:
    """A random view of a small part of images (b, c, h, w)."""
    size = cfg.training.small_size or max(1, side(cfg.model, *images.shape[2:]) // 2)
    return _view(cfg.training, size, cfg.training.small_crop_scale)


def _view(cfg: config.Training, size: int, scale: tuple[float, float]) -> augment.Augmentation:
    return augment.Augmentation(
        size=size,
        scale=scale,
        flip=0.5 * cfg.flip,
        brightness=0.8 * cfg.jitter,  # the proportions are SimCLR's
        contrast=0.8 * cfg.jitter,
        saturation=0.8 * cfg.jitter,
        hue=0.2 * cfg.jitter,
        gray=cfg.gray,
        blur=cfg.blur,
    )


def spread_out(rows: np.ndarray, n: int) -> np.ndarray:
    """At most n of the rows, evenly."""
    return rows if len(rows) <= n else rows[np.linspace(0, len(rows) - 1, n).astype(int)]
