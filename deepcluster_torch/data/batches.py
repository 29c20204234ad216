"""Batches of uint8 images as tensors."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

INFERENCE_BATCH = 256  # the same everywhere without gradient: another size rounds differently


def batches(
    images: np.ndarray, batch_size: int, order: Tensor | None = None, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches uint8 (b, c, h, w), channels last in memory, and their indices (b,).

    order (m,): indices of the images, 0, 1, ... by default; first: number of the first batch. A
    last batch of one image joins the batch before: batch norm cannot learn from one.
    """
    order = torch.arange(len(images)) if order is None else order.cpu()
    for start, end in list(batch_bounds(len(order), batch_size))[first:]:
        indices = order[start:end]
        pixels = np.asarray(images[indices.numpy()])  # a copy, also of memory-mapped images
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2), indices


def batch_bounds(n: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Start and end of each batch of n images."""
    for start in range(0, n, batch_size):
        if n - start > 1 or start == 0:
            end = min(start + batch_size, n)
            yield start, end + 1 if n - end == 1 else end
