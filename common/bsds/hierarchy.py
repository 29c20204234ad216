"""Regions of a picture that join one after another: merging, ultrametric contour maps, cuts."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDES = ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:]))  # pixels, and those beside them


@dataclass(frozen=True)
class Hierarchy:
    """The finest regions, and the height at which each two neighbours have become one.

    labels (h, w) of integers from 0; pairs (m, 2) of labels with a common side, the smaller first,
    in order; heights (m,).
    """

    labels: np.ndarray
    pairs: np.ndarray
    heights: np.ndarray

    def cut(self, height: float) -> np.ndarray:
        """Regions that are still apart above this height: (h, w) of integers from 0."""
        return self._joined(self.heights <= height)

    def cuts(self, heights: Sequence[float]) -> np.ndarray:
        """One cut a height: (heights, h, w), as `bsds.benchmark` takes a picture's scales."""
        return np.stack([self.cut(height) for height in heights])

    def regions(self, n: int) -> np.ndarray:
        """The finest cut of n regions or fewer: (h, w). Raises ValueError for n below 1."""
        if n < 1:
            raise ValueError(f"n is {n}: one region or more was expected")
        levels = np.unique(self.heights)
        low, high = -1, len(levels) - 1  # a cut at levels[low] has too many, at levels[high] few
        if int(self.labels.max()) < n:
            return self._joined(np.zeros(len(self.heights), bool))
        while high - low > 1:
            middle = (low + high) // 2
            found = self.cut(levels[middle])
            low, high = (low, middle) if found.max() < n else (middle, high)
        return self.cut(levels[high])

    def ucm(self) -> np.ndarray:
        """The ultrametric contour map in double size, as the official benchmark reads "ucm2".

        (2h + 1, 2w + 1) float64: pixels are at odd places and 0, sides between them have the height
        at which they go, corners the greatest of their four sides, the frame what is beside it.
        """
        h, w = self.labels.shape
        ucm = np.zeros((2 * h + 1, 2 * w + 1))
        n = int(self.labels.max()) + 1
        keys = self.pairs @ [n, 1]
        for (a, b), place in zip(SIDES, (np.s_[1::2, 2:-1:2], np.s_[2:-1:2, 1::2]), strict=True):
            first, second = self.labels[a], self.labels[b]
            apart = first != second
            sought = np.sort(np.stack([first[apart], second[apart]], 1), 1) @ [n, 1]
            ucm[place][apart] = self.heights[np.searchsorted(keys, sought)]
        ucm[2:-1:2, 2:-1:2] = np.max(
            [ucm[1:-2:2, 2:-1:2], ucm[3::2, 2:-1:2], ucm[2:-1:2, 1:-2:2], ucm[2:-1:2, 3::2]], axis=0
        )
        ucm[0], ucm[-1] = ucm[1], ucm[-2]
        ucm[:, 0], ucm[:, -1] = ucm[:, 1], ucm[:, -2]
        return ucm

    def _joined(self, together: np.ndarray) -> np.ndarray:
        n = int(self.labels.max()) + 1
        return _components(self.pairs[together], n)[self.labels]


def from_ucm(ucm: np.ndarray) -> Hierarchy:
    """The regions of an ultrametric contour map in double size, (2h + 1, 2w + 1) -> (h, w).

    Cut at a height they are what MATLAB's bwlabel(ucm <= height) has at every second place.
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
    apart, pairs, index = _neighbours(*labels[pairs.T])
    lowest = np.full(len(pairs), np.inf)
    np.minimum.at(lowest, index, heights[apart])
    return Hierarchy(labels.reshape(h, w), pairs, lowest)


def merge(
    labels: np.ndarray,
    features: np.ndarray,
    contrast: np.ndarray | None = None,
    *,
    contrast_weight: float = 3.0,
    size_power: float = 0.1,
) -> Hierarchy:
    """Joins the two neighbours of least cost again and again, until one region is left.

    labels (h, w) of integers, connected regions, see `bsds.components`; features (h, w, c), of
    which a region has the mean; contrast (h, w), how strong a border through each pixel is. The
    cost is the squared distance of the means, and contrast_weight times the squared mean contrast
    along the border, times a power of n m / (n + m) for regions of n and m pixels. The height is
    the greatest cost so far, so that cuts at one height are alike in all pictures.
    """
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    sizes = np.bincount(labels.ravel()).astype(np.float64)
    channels = features.reshape(labels.size, -1).T
    sums = np.stack([np.bincount(labels.ravel(), channel) for channel in channels], 1)
    means = list(sums / sizes[:, None])
    pairs, lengths, contrasts = _borders(labels, contrast)
    heights = np.zeros(len(pairs))
    members = [[k] for k in range(len(pairs))]  # the pairs of which each border is made
    near: list[dict[int, int]] = [{} for _ in sizes]  # neighbour -> border
    for k, (i, j) in enumerate(pairs.tolist()):
        near[i][j] = near[j][i] = k
    sizes, lengths, contrasts = sizes.tolist(), lengths.tolist(), contrasts.tolist()
    versions = [0] * len(sizes)  # a queued pair counts while neither has changed since

    def queued(i: int, j: int) -> tuple[float, int, int, int, int]:
        gap, border = means[i] - means[j], near[i][j]
        cost = gap @ gap + contrast_weight * (contrasts[border] / lengths[border]) ** 2
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
                members[kept] += members[border]
        for k in near[i]:
            heapq.heappush(queue, queued(i, k))
    return Hierarchy(labels, pairs, heights)


def _borders(
    labels: np.ndarray, contrast: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours (m, 2), how many sides of pixels each have in common, the contrast's sum there."""
    ends = [np.concatenate([labels[side[i]].ravel() for side in SIDES]) for i in (0, 1)]
    apart, pairs, index = _neighbours(*ends)
    lengths = np.bincount(index, minlength=len(pairs))
    if contrast is None:
        return pairs, lengths, np.zeros(len(pairs))
    means = np.concatenate([((contrast[a] + contrast[b]) / 2).ravel() for a, b in SIDES])
    return pairs, lengths, np.bincount(index, means[apart], len(pairs))


def _neighbours(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where two labels (n,) differ, the pairs (m, 2) found there in order, each one's number."""
    apart = np.flatnonzero(first != second)
    low, high = np.minimum(first, second)[apart], np.maximum(first, second)[apart]
    n = int(high.max(initial=0)) + 1
    keys, index = np.unique(low.astype(np.int64) * n + high, return_inverse=True)
    return apart, np.stack(np.divmod(keys, n), 1), index


def _components(pairs: np.ndarray, n: int) -> np.ndarray:
    """Which of n are joined by pairs (m, 2): (n,) of integers from 0."""
    edges = (np.ones(len(pairs), bool), tuple(pairs.T))
    return connected_components(coo_array(edges, shape=(n, n)), directed=False)[1]
