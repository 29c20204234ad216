"""Ward's agglomerative merging of clusters into groups."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from common import UserError


def merge(centroids: Tensor, sizes: Tensor, n_groups: int) -> Tensor:
    """The group (k,) of each cluster; centroids (k, d), sizes (k,).

    Repeatedly joins the two groups that increase the sum of squared distances least. Groups are
    numbered in the order of their first cluster. Raises UserError for more groups than clusters.
    """
    k = len(centroids)
    if not 1 <= n_groups <= k:
        raise UserError(f"cannot merge {k} clusters into {n_groups} groups")
    labels = np.arange(k)
    joins = sorted(_joins(centroids.cpu().double().numpy(), sizes.cpu().double().numpy()))
    for _, kept, joined in joins[: k - n_groups]:
        labels[labels == labels[joined]] = labels[kept]
    _, first, groups = np.unique(labels, return_index=True, return_inverse=True)
    ranks = first.argsort().argsort()
    return torch.from_numpy(ranks[groups]).to(centroids.device)


def _joins(centroids: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """All k - 1 joins as (cost, a cluster of one group, a cluster of the other), unsorted.

    Nearest-neighbor chain algorithm: O(k^2) distances in total, without a table of them.
    """
    centroids, sizes = centroids.copy(), np.maximum(sizes, 1)  # empty clusters are joined too
    alive = np.ones(len(centroids), bool)
    chain: list[int] = []
    for _ in range(len(centroids) - 1):
        while True:
            if not chain:
                chain.append(int(alive.argmax()))
            last = chain[-1]
            costs = np.square(centroids - centroids[last]).sum(1)
            costs *= sizes * sizes[last] / (sizes + sizes[last])
            costs[~alive] = costs[last] = np.inf
            best = int(costs.argmin())
            if len(chain) > 1 and costs[chain[-2]] <= costs[best]:
                break
            chain.append(best)
        joined, kept = chain.pop(), chain.pop()
        yield float(costs[kept]), kept, joined
        weight = sizes[joined] / (sizes[joined] + sizes[kept])
        centroids[kept] += weight * (centroids[joined] - centroids[kept])
        sizes[kept] += sizes[joined]
        alive[joined] = False
