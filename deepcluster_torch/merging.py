"""Clusters merged to groups: more clusters than kinds are found first, then joined."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from common import UserError


def merge(centroids: Tensor, sizes: Tensor, n_groups: int) -> Tensor:
    """Ward's groups of clusters: centroids (k, d), sizes (k,) -> groups (k,) in 0 .. n_groups - 1.

    Those two are joined, again and again, that raise the sum of squares of the points least. Group
    0 is the one of cluster 0, and so on in the order of the clusters. Raises UserError for more
    groups than clusters.
    """
    k = len(centroids)
    if not 1 <= n_groups <= k:
        raise UserError(f"{n_groups} groups were asked for, of {k} clusters")
    parents = np.arange(k)
    joins = sorted(_ward(centroids.cpu().double().numpy(), sizes.cpu().double().numpy()))
    for _, kept, gone in joins[: k - n_groups]:
        parents[parents == parents[gone]] = parents[kept]
    _, first, groups = np.unique(parents, return_index=True, return_inverse=True)
    ranks = first.argsort().argsort()
    return torch.from_numpy(ranks[groups]).to(centroids.device)


def _ward(centres: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """All k - 1 joins as (cost, a cluster of the one side, a cluster of the other), unsorted.

    By chains of nearest neighbours: each is the nearest of the one before, until two are so of each
    other. k^2 distances in all, never a table of them.
    """
    centres, sizes = centres.copy(), np.maximum(sizes, 1)  # an empty cluster has a place, too
    alive = np.ones(len(centres), bool)
    chain: list[int] = []
    for _ in range(len(centres) - 1):
        while True:
            if not chain:
                chain.append(int(alive.argmax()))
            last = chain[-1]
            costs = np.square(centres - centres[last]).sum(1)
            costs *= sizes * sizes[last] / (sizes + sizes[last])
            costs[~alive] = costs[last] = np.inf
            best = int(costs.argmin())
            if len(chain) > 1 and costs[chain[-2]] <= costs[best]:
                break
            chain.append(best)
        gone, kept = chain.pop(), chain.pop()
        yield float(costs[kept]), kept, gone
        share = sizes[gone] / (sizes[gone] + sizes[kept])
        centres[kept] += share * (centres[gone] - centres[kept])
        sizes[kept] += sizes[gone]
        alive[gone] = False
