"""Covering, Rand index and variation of information of a picture's segmentations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DENSE = 1 << 24  # the longest table that stands in for a sort


@dataclass(frozen=True)
class RegionScores:
    """One picture's segmentations at all scales against all of its annotators.

    covered, pri, vi (scales,); covered and best are areas in pixels, of `area`, and all annotators
    are pooled: covered / area is the covering. best takes the best scale for every human segment.
    pri and vi, in bits, are means over the annotators.
    """

    covered: np.ndarray
    best: float
    area: int
    pri: np.ndarray
    vi: np.ndarray


def region_scores(scales: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> RegionScores:
    """scales and truths each (h, w) of any integers; Arbelaez et al. 2011, section 3.1.

    All maps are counted once into the pieces that none of them divides; what follows works on
    pieces and their sizes, of which there are far fewer than pixels.
    """
    flat = [number(labels.ravel()) for labels in (*scales, *truths)]
    pieces = flat[0]
    for labels in flat[1:]:
        pieces = number(pieces * (labels.max() + 1) + labels)
    sizes = np.bincount(pieces)
    member = np.empty(len(sizes), np.int64)  # a pixel of each piece
    member[pieces] = np.arange(len(pieces))
    flat = [labels[member] for labels in flat]
    tables = [np.bincount(labels, sizes) for labels in flat]
    n = len(scales)
    covered, pri, vi = np.zeros(n), np.zeros(n), np.zeros(n)
    best_of_all = 0.0
    for truth, areas in zip(flat[n:], tables[n:], strict=True):
        best = np.zeros((n, len(areas)))
        for i in range(n):
            segment, true, shared = _joint(flat[i], truth, sizes, tables[i], areas)
            union = tables[i][segment] + areas[true] - shared
            np.maximum.at(best[i], true, shared / union)
            pri[i] += _rand_index(shared, tables[i], areas)
            vi[i] += 2 * _entropy(shared) - _entropy(tables[i]) - _entropy(areas)
        covered += best @ areas
        best_of_all += float(best.max(axis=0) @ areas)
    n_truths = len(truths)
    area = n_truths * len(pieces)
    return RegionScores(covered, best_of_all, area, pri / n_truths, np.maximum(vi, 0) / n_truths)


def number(values: np.ndarray) -> np.ndarray:
    """The same partition, its values numbered from 0: (n,) of integers -> (n,) int64."""
    low, high = int(values.min()), int(values.max())
    if high - low >= DENSE:
        return np.unique(values, return_inverse=True)[1]
    values, index = values.astype(np.int64) - low, np.arange(len(values))
    table = np.empty(high - low + 1, np.int32)  # written where it is read, and nowhere else
    table[values] = index
    chosen = table[values]  # for each the one that stands for all of its value
    return (np.cumsum(chosen == index) - 1)[chosen]


def _joint(
    a: np.ndarray, b: np.ndarray, sizes: np.ndarray, areas_a: np.ndarray, areas_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of labels that meet, and in how many pixels; a, b, sizes of the pieces."""
    pairs = a * len(areas_b) + b
    if len(areas_a) * len(areas_b) <= 16 * len(pairs):
        table = np.bincount(pairs, sizes)
        found = np.flatnonzero(table)
        shared = table[found]
    else:
        found, index = np.unique(pairs, return_inverse=True)
        shared = np.bincount(index, sizes)
    return *np.divmod(found, len(areas_b)), shared


def _rand_index(shared: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Share of the pairs of pixels that both keep together or both keep apart; exact in float64."""
    n = a.sum()
    if n < 2:
        return 1.0
    return float(1 - ((a @ a + b @ b) / 2 - shared @ shared) / (n * (n - 1) / 2))


def _entropy(counts: np.ndarray) -> float:
    """In bits; counts above 0."""
    shares = counts / counts.sum()
    return float(-(shares @ np.log2(shares)))
