"""Segmentations of a picture against those of several people."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def best_overlap_miou(
    predictions: Iterable[ArrayLike],
    ground_truths: Iterable[Sequence[ArrayLike]],
    connectivity: int = 8,
) -> dict[str, float]:
    """Mean over all human segments of the best intersection over union with a predicted one.

    predictions: one (h, w) of integers an image; ground_truths: for each image one (h, w) an
    annotator. Predictions are first split into connected components, see `components`; several
    human segments may share one. Pooled: one mean over the segments of the whole data set.
    "all" is over all annotators, "fine" over the one of each image with the most segments, "coarse"
    over the one with the fewest, "mean" the mean of the three. Kim et al. 2020, as their authors
    evaluate. Raises ValueError for arrays that do not fit.
    """
    images = zip(predictions, ground_truths, strict=True)
    return pool([overlaps(predicted, truths, connectivity) for predicted, truths in images])


def overlaps(
    predicted: ArrayLike, truths: Sequence[ArrayLike], connectivity: int = 8
) -> list[list[float]]:
    """For each annotator of one image the best overlap of each of the segments, in [0, 1].

    predicted (h, w), truths each (h, w), integers. connectivity as in `components`; 0: the
    prediction is taken as it is.
    """
    predicted = _map(predicted, "the prediction")
    if not len(truths):
        raise ValueError("an image has no ground truth: one annotator or more was expected")
    pieces = components(predicted, connectivity) if connectivity else predicted
    pieces = np.unique(pieces, return_inverse=True)[1].ravel()
    areas = np.bincount(pieces)
    best = []
    for truth in truths:
        truth = _map(truth, "a ground truth")
        if truth.shape != predicted.shape:
            raise ValueError(f"the prediction is {predicted.shape}, a ground truth {truth.shape}")
        segments = np.unique(truth, return_inverse=True)[1].ravel()
        sizes = np.bincount(segments)
        pairs, shared = np.unique(segments * len(areas) + pieces, return_counts=True)
        segment, piece = np.divmod(pairs, len(areas))
        highest = np.zeros(len(sizes))
        np.maximum.at(highest, segment, shared / (sizes[segment] + areas[piece] - shared))
        best.append(highest.tolist())
    return best


def pool(images: Sequence[Sequence[Sequence[float]]]) -> dict[str, float]:
    """The scores of `best_overlap_miou` from what `overlaps` gives for each image."""
    if not len(images):
        raise ValueError("there is no image to score")
    chosen = {
        "all": [truth for truths in images for truth in truths],
        "fine": [max(truths, key=len) for truths in images],
        "coarse": [min(truths, key=len) for truths in images],
    }
    scores = {name: float(np.concatenate(truths).mean()) for name, truths in chosen.items()}
    return scores | {"mean": sum(scores.values()) / 3}


def components(labels: ArrayLike, connectivity: int = 8) -> np.ndarray:
    """Numbers the connected pieces of equal label from 0, in reading order: (h, w) -> (h, w) int.

    connectivity 4 joins pixels with a common side, 8 also those with a common corner.
    """
    labels = _map(labels, "the labels")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity is {connectivity}: expected 4 or 8")
    h, w = labels.shape
    index = np.arange(h * w).reshape(h, w)
    steps = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:])]
    if connectivity == 8:
        steps += [(index[:-1, :-1], index[1:, 1:]), (index[:-1, 1:], index[1:, :-1])]
    starts, ends = (np.concatenate([step[i].ravel() for step in steps]) for i in (0, 1))
    flat = labels.ravel()
    equal = flat[starts] == flat[ends]
    edges = (np.ones(np.count_nonzero(equal), bool), (starts[equal], ends[equal]))
    graph = coo_array(edges, shape=(h * w, h * w))
    pieces = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(pieces, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(h, w)


def _map(values: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "iub":
        raise ValueError(f"{name} is {values.shape} of {values.dtype}: expected (h, w) of integers")
    return values
