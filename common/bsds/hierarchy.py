"""Hierarchies of regions: greedy merging, ultrametric contour maps, cuts."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Pixels, and the ones to the right or below: a "side" lies between two neighboring pixels.
SIDES = ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:]))


@dataclass(frozen=True)
class Hierarchy:
    """The finest regions, and the height at which two neighbors have become one region.

    labels (h, w), integers from 0; pairs (m, 2) of labels that share a side, the smaller label
    first, sorted; heights (m,).
    """

    labels: np.ndarray
    pairs: np.ndarray
    heights: np.ndarray

    def cut(self, height: float) -> np.ndarray:
        """The regions that are still separate above this height: (h, w), integers from 0."""
        return self._join(self.heights <= height)

    def cuts(self, heights: Sequence[float]) -> np.ndarray:
        """One cut per height: (heights, h, w), the scales of an image for `bsds.benchmark`."""
        return np.stack([self.cut(height) for height in heights])

    def regions(self, n: int) -> np.ndarray:
        """The finest cut with at most n regions: (h, w). Raises ValueError for n below 1."""
        if n < 1:
            raise ValueError(f"n is {n}: expected 1 or more regions")
        levels = np.unique(self.heights)
        low, high = -1, len(levels) - 1  # cut at levels[low]: above n regions; at levels[high]: not
        if int(self.labels.max()) < n:
            return self._join(np.zeros(len(self.heights), bool))
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.cut(levels[middle]).max() < n
            low, high = (low, middle) if fits else (middle, high)
        return self.cut(levels[high])

    def ucm(self) -> np.ndarray:
        """The ultrametric contour map in double size, "ucm2" of the official benchmark.

        (2h + 1, 2w + 1) float64: 0 at pixels (odd rows and columns), on a side the height at which
        it disappears, on a corner the maximum of its four sides; the frame repeats its neighbors.
        """
        h, w = self.labels.shape
        ucm = np.zeros((2 * h + 1, 2 * w + 1))
        n = int(self.labels.max()) + 1
        keys = self.pairs @ [n, 1]
        for (a, b), place in zip(SIDES, (np.s_[1::2, 2:-1:2], np.s_[2:-1:2, 1::2]), strict=True):
            first, second = self.labels[a], self.labels[b]
            is_border = first != second
            pairs = np.sort(np.stack([first[is_border], second[is_border]], 1), 1)
            ucm[place][is_border] = self.heights[np.searchsorted(keys, pairs @ [n, 1])]
        ucm[2:-1:2, 2:-1:2] = np.max(
            [ucm[1:-2:2, 2:-1:2], ucm[3::2, 2:-1:2], ucm[2:-1:2, 1:-2:2], ucm[2:-1:2, 3::2]], axis=0
        )
        ucm[0], ucm[-1] = ucm[1], ucm[-2]
        ucm[:, 0], ucm[:, -1] = ucm[:, 1], ucm[:, -2]
        return ucm

    def _join(self, is_joined: np.ndarray) -> np.ndarray:
        n = int(self.labels.max()) + 1
        return _components(self.pairs[is_joined], n)[self.labels]


def from_ucm(ucm: np.ndarray) -> Hierarchy:
    """The regions of an ultrametric contour map in double size, (2h + 1, 2w + 1) -> (h, w).

    A cut equals every second row and column of MATLAB's bwlabel(ucm <= height).
    """
    ucm = np.asarray(ucm, np.float64)
    h, w = ucm.shape[0] // 2, ucm.shape[1] // 2
    if ucm.ndim != 2 or ucm.shape != (2 * h + 1, 2 * w + 1) or not h * w:
        raise ValueError(f"the contour map is {ucm.shape}: expected (2h + 1, 2w + 1)")
    index = np.arange(h * w).reshape(h, w)
    pairs = np.concatenate([np.stack([index[a].ravel(), index[b].ravel()], 1) for a, b in SIDES])
    sides = [  # a corner that is lower than its sides joins across them
        np.minimum(np.minimum(ucm[:-2:2, 2:-1:2], ucm[2::2, 2:-1:2]), ucm[1::2, 2:-1:2]),
        np.minimum(np.minimum(ucm[2:-1:2, :-2:2], ucm[2:-1:2, 2::2]), ucm[2:-1:2, 1::2]),
    ]
    heights = np.concatenate([side.ravel() for side in sides])
    labels = _components(pairs[heights <= 0], h * w)
    is_border, pairs, index = _pairs(*labels[pairs.T])
    lowest = np.full(len(pairs), np.inf)
    np.minimum.at(lowest, index, heights[is_border])
    return Hierarchy(labels.reshape(h, w), pairs, lowest)


def merge(
    labels: np.ndarray,
    features: np.ndarray,
    contrast: np.ndarray | Sequence[np.ndarray] | None = None,
    *,
    contrast_weight: float = 3.0,
    changes: np.ndarray | None = None,
    changes_weight: float = 0.0,
    size_power: float = 0.1,
) -> Hierarchy:
    """Merges the two neighbors of least cost again and again, until one region is left.

    labels (h, w) of integers, connected regions, see `bsds.components`. features (h, w, c), a
    region has their mean, or (n, c), the means of regions 0 to n - 1. contrast: edge strength at
    each pixel (h, w), or at each side between two, [(h, w - 1), (h - 1, w)]. changes (h, w): a
    second map of labels.

    The cost is the squared distance of the features, plus contrast_weight times the squared mean
    contrast along the border, plus changes_weight times the fraction of the border across which
    `changes` differs; all times (n m / (n + m)) ** size_power for regions of n and m pixels. A
    height is the maximum of the costs so far: a cut at a height equals stopping at that cost.
    """
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    sizes = np.bincount(labels.ravel()).astype(np.float64)
    means = list(features if features.ndim == 2 else region_means(labels, features))
    first, second = _sides(labels)
    is_border, pairs, index = _pairs(first, second)
    zeros = np.zeros(len(first))
    at_sides = (
        zeros + 1,
        zeros if contrast is None else _at_sides(contrast),
        zeros if changes is None else np.not_equal(*_sides(changes)),
    )
    lengths, contrasts, n_changes = (
        np.bincount(index, values[is_border], len(pairs)).tolist() for values in at_sides
    )
    heights = np.zeros(len(pairs))
    members = [[k] for k in range(len(pairs))]  # the pairs that each border consists of
    near: list[dict[int, int]] = [{} for _ in sizes]  # neighbor -> border
    for k, (i, j) in enumerate(pairs.tolist()):
        near[i][j] = near[j][i] = k
    sizes = sizes.tolist()
    versions = [0] * len(sizes)  # a queued pair is valid while neither region has changed

    def queued(i: int, j: int) -> tuple[float, int, int, int, int]:
        gap, border = means[i] - means[j], near[i][j]
        length = lengths[border]
        cost = gap @ gap + contrast_weight * (contrasts[border] / length) ** 2
        cost += changes_weight * n_changes[border] / length
        size = sizes[i] * sizes[j] / (sizes[i] + sizes[j])
        return float(cost) * size**size_power, i, j, versions[i], versions[j]

    queue = [queued(i, j) for i, j in pairs.tolist()]
    heapq.heapify(queue)
    height = 0.0
    while queue:
        cost, i, j, version_i, version_j = heapq.heappop(queue)
        if versions[i] != version_i or versions[j] != version_j:
            continue
        height = max(height, cost)
        heights[members[near[i][j]]] = height
        total = sizes[i] + sizes[j]
        means[i] = (means[i] * sizes[i] + means[j] * sizes[j]) / total
        sizes[i] = total
        versions[i], versions[j] = versions[i] + 1, -1
        for k, border in near[j].items():
            del near[k][j]
            if k == i:
                continue
            kept = near[i].get(k)
            if kept is None:
                near[i][k] = near[k][i] = border
            else:
                lengths[kept] += lengths[border]
                contrasts[kept] += contrasts[border]
                n_changes[kept] += n_changes[border]
                members[kept] += members[border]
        for k in near[i]:
            heapq.heappush(queue, queued(i, k))
    return Hierarchy(labels, pairs, heights)


def region_means(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of values (h, w, c) in each region of labels (h, w) from 0: (regions, c) float64."""
    flat = labels.ravel()
    channels = values.reshape(labels.size, -1).T
    return np.stack([np.bincount(flat, each) for each in channels], 1) / np.bincount(flat)[:, None]


def neighbors(labels: np.ndarray) -> np.ndarray:
    """The pairs (m, 2) of labels (h, w) that share a side, the smaller first, sorted."""
    return _pairs(*_sides(labels))[1]


def _sides(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two pixels at every side between two pixels: (h, w) -> (sides,), (sides,)."""
    first, second = (np.concatenate([values[side[i]].ravel() for side in SIDES]) for i in (0, 1))
    return first, second


def _at_sides(values: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Values at pixels, averaged, or at sides: (h, w) or [(h, w - 1), (h - 1, w)] -> (sides,)."""
    if isinstance(values, np.ndarray):
        first, second = _sides(values)
        return (first + second) / 2
    return np.concatenate([each.ravel() for each in values])


def _pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where labels (n,) differ: the indices (k,), sorted pairs (m, 2), the pair of each index."""
    is_border = np.flatnonzero(first != second)
    low, high = np.minimum(first, second)[is_border], np.maximum(first, second)[is_border]
    n = int(high.max(initial=0)) + 1
    keys, index = np.unique(low.astype(np.int64) * n + high, return_inverse=True)
    return is_border, np.stack(np.divmod(keys, n), 1), index


def _components(pairs: np.ndarray, n: int) -> np.ndarray:
    """The components of n nodes joined by pairs (m, 2): (n,), integers from 0."""
    edges = (np.ones(len(pairs), bool), tuple(pairs.T))
    return connected_components(coo_array(edges, shape=(n, n)), directed=False)[1]
