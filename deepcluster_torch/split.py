"""Which images a run learns from, and which it holds out for the evaluation."""

import dataclasses

import numpy as np

from common import UserError, datasets
from deepcluster_torch import config, data

SEED = 31  # the authors' seed; a split is the same whatever the seed of the training


class Rows:
    """Some images of an array on disk, by index, without a copy of them in memory."""

    def __init__(self, images: np.ndarray, rows: np.ndarray):
        self.images, self.rows = images, rows
        self.shape, self.dtype = (len(rows), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        return self.images[self.rows[index]]


def load(cfg: config.Dataset) -> tuple[datasets.Images, datasets.Images | None]:
    """The images that are trained on, and those held out, if any; raises UserError."""
    found = _load(cfg, cfg.split)
    if cfg.n_images is not None:
        if not cfg.n_images <= len(found.paths):
            raise UserError(
                f"dataset.n_images is {cfg.n_images}, the data set has {len(found.paths)}"
            )
        chosen = np.random.default_rng(SEED).choice(len(found.paths), cfg.n_images, replace=False)
        found = subset(found, np.sort(chosen))
    if cfg.test_split:
        return found, _load(cfg, cfg.test_split)
    if not cfg.held_out:
        return found, None
    n = len(found.paths)
    n_held_out = round(cfg.held_out * n)
    if not 0 < n_held_out < n:
        raise UserError(f"dataset.held_out is {cfg.held_out}, of {n} images none would be left")
    order = np.random.default_rng(SEED).permutation(n)
    held_out, kept = np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
    return subset(found, kept), subset(found, held_out)


def _load(cfg: config.Dataset, split: str) -> datasets.Images:
    return data.load(cfg.name, split, cfg.root, cfg.path, cfg.size, cfg.max_bad)


def subset(found: datasets.Images, rows: np.ndarray) -> datasets.Images:
    """Some images of a data set, in the order of rows (m,)."""
    images = found.images
    return dataclasses.replace(
        found,
        images=Rows(images, rows) if isinstance(images, np.memmap | Rows) else images[rows],
        labels=None if found.labels is None else found.labels[rows],
        paths=[found.paths[i] for i in rows],
    )
