"""The images to train on, those held out for evaluation, and new images."""

import dataclasses
from pathlib import Path

import numpy as np

from common import UserError, datasets, images
from deepcluster_torch import config
from deepcluster_torch.data import folder_cache

SPLIT_SEED = 31  # as in the authors' code; a split does not depend on training.seed


class IndexedImages:
    """Some images of a memory-mapped array (n, h, w, c), read only when they are indexed."""

    def __init__(self, images: np.ndarray, indices: np.ndarray):
        self.images, self.indices = images, indices
        self.shape, self.dtype = (len(indices), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        return self.images[self.indices[index]]


def load(cfg: config.Dataset) -> tuple[datasets.Images, datasets.Images | None]:
    """The images to train on and those held out, if any; raises UserError."""
    dataset = _load_split(cfg, cfg.split)
    n = len(dataset.paths)
    if cfg.n_images is not None:
        if cfg.n_images > n:
            raise UserError(f"dataset.n_images is {cfg.n_images}, the dataset has {n}")
        chosen = np.random.default_rng(SPLIT_SEED).choice(n, cfg.n_images, replace=False)
        dataset, n = subset(dataset, np.sort(chosen)), cfg.n_images
    if cfg.test_split:
        return dataset, _load_split(cfg, cfg.test_split)
    if not cfg.held_out:
        return dataset, None
    n_held_out = round(cfg.held_out * n)
    if not 0 < n_held_out < n:
        raise UserError(
            f"dataset.held_out is {cfg.held_out}: of {n} images, none would be left for training "
            "or for evaluation"
        )
    order = np.random.default_rng(SPLIT_SEED).permutation(n)
    held_out, kept = np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
    return subset(dataset, kept), subset(dataset, held_out)


def load_new(path: Path, shape: list[int], max_bad: float) -> datasets.Images:
    """New images in the shape (h, w, c) of the training images; squares are center crops."""
    height, width, n_channels = shape
    size = height if height == width else (height, width)
    dataset = datasets.load("folder", path=path, size=size, max_bad=max_bad)
    pixels = images.to_channels(dataset.images, n_channels)
    return dataclasses.replace(dataset, images=pixels)


def _load_split(cfg: config.Dataset, split: str) -> datasets.Images:
    return folder_cache.load(cfg.name, split, cfg.root, cfg.path, cfg.size, cfg.max_bad)


def subset(dataset: datasets.Images, indices: np.ndarray) -> datasets.Images:
    """Some images of a dataset, in the order of indices (m,)."""
    pixels = dataset.images
    is_lazy = isinstance(pixels, np.memmap | IndexedImages)
    return dataclasses.replace(
        dataset,
        images=IndexedImages(pixels, indices) if is_lazy else pixels[indices],
        labels=None if dataset.labels is None else dataset.labels[indices],
        paths=[dataset.paths[i] for i in indices],
    )


def evenly_spaced(indices: np.ndarray, n: int) -> np.ndarray:
    """At most n of the indices."""
    if len(indices) <= n:
        return indices
    return indices[np.linspace(0, len(indices) - 1, n).astype(int)]
