"""Exact nearest neighbors of tensors by faiss, where it is installed and faster than our search."""

import functools
import importlib.util
import logging
import warnings
from typing import Any

import torch
from torch import Tensor

from common import UserError

# Our time divided by that of faiss 1.15.1 on a CPU, one thread, medians of five alternating runs:
#   nearest of 10 to 3,000 centroids: 1.1 to 3.5 for 2,000 to 20,000 points, d 2 to 256;
#       with fewer than 1,000 points faiss compares vectors one by one: down to 0.2
#   5 to 10 nearest others of 5,000 to 20,000 points, d 64 to 256: 1.4 to 2.0;
#       of 2,000, d 32: 0.5, and of 5,000, d 16: 0.7
#   200 to 1,000 nearest others: 0.5 to 0.9
# common.metrics and common.pytorch.probes need all keys of a tie, and as many as a class has: there
# ours stays.
MIN_POINTS, MIN_POINTS_OTHERS, MIN_DIMENSIONS_OTHERS, MAX_OTHERS = 1024, 4096, 64, 100


def faiss_finds_nearest(points: Tensor) -> bool:
    """Whether to use faiss for the nearest of few keys; not on a GPU, where it is not measured."""
    return points.device.type == "cpu" and len(points) >= MIN_POINTS and _is_installed()


def faiss_finds_others(points: Tensor, k: int) -> bool:
    """Whether to use faiss for the k nearest other points of each of points (n, d)."""
    is_large = len(points) >= MIN_POINTS_OTHERS and points.shape[1] >= MIN_DIMENSIONS_OTHERS
    return is_large and k <= MAX_OTHERS and faiss_finds_nearest(points)


def nearest(queries: Tensor, keys: Tensor, k: int = 1) -> Tensor:
    """Indices (n, k) int64 of the k keys (m, d) nearest to queries (n, d), nearest first.

    float32 on one device, k <= m, Euclidean. On a GPU it needs faiss-gpu. Raises UserError for
    numbers whose squares overflow float32.
    """
    faiss = _load()
    if queries.is_cuda:
        import faiss.contrib.torch_utils

        ids = faiss.knn_gpu(_workspace(queries.device), queries.contiguous(), keys.contiguous(), k)
        return ids[1]
    faiss.omp_set_num_threads(torch.get_num_threads())
    pair = (each.contiguous().numpy() for each in (queries, keys))
    ids = torch.from_numpy(faiss.knn(*pair, k)[1])
    if len(ids) and ids.min() < 0:
        raise UserError("squared distances overflow float32: scale the features down")
    return ids


def nearest_others(points: Tensor, k: int) -> Tensor:
    """Indices (n, k) of the k < n other points nearest to each of points (n, d), see `nearest`."""
    ids = nearest(points, points, k + 1)
    is_self = ids == torch.arange(len(points), device=ids.device)[:, None]
    is_self[~is_self.any(1), -1] = True  # duplicates came before the point itself
    return ids[~is_self].view(len(points), k)


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("faiss") is not None


@functools.cache
def _load() -> Any:
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it logs each build that it tries to load
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its SWIG types, Python 3.12
        import faiss
    return faiss


@functools.cache
def _workspace(device: torch.device) -> Any:
    with torch.cuda.device(device):
        return _load().StandardGpuResources()
