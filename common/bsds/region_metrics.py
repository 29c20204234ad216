"""Covering, Rand index and variation of information of the segmentations of an image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_TABLE = 1 << 24  # largest range of values for which a table is used instead of sorting


@dataclass(frozen=True)
class RegionScores:
    """Scores of one image: its segmentations at all scales against all annotators.

    covered, pri, vi (scales,). covered / area is the covering, pooled over the annotators; `best`
    is the area covered with the best scale for each human segment; all three in pixels. pri and vi
    (in bits) are means over the annotators.
    """

    covered: np.ndarray
    best: float
    area: int
    pri: np.ndarray
    vi: np.ndarray


def region_scores(
    scales: Sequence[np.ndarray], ground_truths: Sequence[np.ndarray]
) -> RegionScores:
    """scales and ground_truths each (h, w) of any integers; Arbelaez et al. 2011, section 3.1.

    Computed on the intersection of all maps, whose pieces are far fewer than the pixels.
    """
    flat = [renumber(labels.ravel()) for labels in (*scales, *ground_truths)]
    pieces = flat[0]
    for labels in flat[1:]:
        pieces = renumber(pieces * (labels.max() + 1) + labels)
    sizes = np.bincount(pieces)
    pixel = np.empty(len(sizes), np.int64)  # one pixel of each piece
    pixel[pieces] = np.arange(len(pieces))
    flat = [labels[pixel] for labels in flat]  # (pieces,) each
    areas = [np.bincount(labels, sizes) for labels in flat]
    n = len(scales)
    covered, pri, vi = np.zeros(n), np.zeros(n), np.zeros(n)
    covered_by_best = 0.0
    for truth, true_areas in zip(flat[n:], areas[n:], strict=True):
        overlap = np.zeros((n, len(true_areas)))  # best IoU of each true segment
        for i in range(n):
            segment, true, shared = _intersections(flat[i], truth, sizes, areas[i], true_areas)
            union = areas[i][segment] + true_areas[true] - shared
            np.maximum.at(overlap[i], true, shared / union)
            pri[i] += _rand_index(shared, areas[i], true_areas)
            vi[i] += 2 * _entropy(shared) - _entropy(areas[i]) - _entropy(true_areas)
        covered += overlap @ true_areas
        covered_by_best += float(overlap.max(axis=0) @ true_areas)
    n_truths = len(ground_truths)
    total = n_truths * len(pieces)
    return RegionScores(
        covered, covered_by_best, total, pri / n_truths, np.maximum(vi, 0) / n_truths
    )


def renumber(values: np.ndarray) -> np.ndarray:
    """The same partition with labels from 0: (n,) of integers -> (n,) int64."""
    low, high = int(values.min()), int(values.max())
    if high - low >= MAX_TABLE:
        return np.unique(values, return_inverse=True)[1]
    values, index = values.astype(np.int64) - low, np.arange(len(values))
    table = np.empty(high - low + 1, np.int32)  # only entries that were written are read
    table[values] = index
    representative = table[values]  # one index for each value
    return (np.cumsum(representative == index) - 1)[representative]


def _intersections(
    a: np.ndarray, b: np.ndarray, sizes: np.ndarray, areas_a: np.ndarray, areas_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels in a and b, and areas, of all non-empty intersections; a, b, sizes (pieces,)."""
    pairs = a * len(areas_b) + b
    if len(areas_a) * len(areas_b) <= 16 * len(pairs):
        table = np.bincount(pairs, sizes)
        pairs = np.flatnonzero(table)
        shared = table[pairs]
    else:
        pairs, index = np.unique(pairs, return_inverse=True)
        shared = np.bincount(index, sizes)
    return *np.divmod(pairs, len(areas_b)), shared


def _rand_index(shared: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Fraction of pixel pairs on which both agree, from the areas; exact in float64."""
    n = a.sum()
    if n < 2:
        return 1.0
    return float(1 - ((a @ a + b @ b) / 2 - shared @ shared) / (n * (n - 1) / 2))


def _entropy(counts: np.ndarray) -> float:
    """In bits; counts above 0."""
    fractions = counts / counts.sum()
    return float(-(fractions @ np.log2(fractions)))
