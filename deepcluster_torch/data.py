"""From common.datasets to batches: a folder of images becomes a cache on disk, mapped to memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from common import datasets


def load(
    name: str,
    split: str = "",
    root: str | Path | None = None,
    path: str | Path | None = None,
    size: int | None = None,
    max_bad: float = 0.01,
) -> datasets.Images:
    """As `common.datasets.load`, but the pixels of a folder are a read-only map of a cache file.

    The cache is built once, below DATA_ROOT/cache, and again when a file of the folder changed.
    """
    raise NotImplementedError


def batches(
    images: np.ndarray, batch_size: int, order: Tensor | None = None, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 batches (b, c, h, w), channels last in memory, and their indices (b,).

    order (m,): the indices to go through, in that order; default is 0, 1, ... Starts at batch
    number `first`. A last batch of one joins the one before: batch norm cannot learn from one.
    """
    raise NotImplementedError
