"""Segmentations of images against those of several human annotators (BSDS protocol)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.bsds import boundaries, region_metrics


def region_scores(segmentation: ArrayLike, ground_truths: Sequence[ArrayLike]) -> dict[str, float]:
    """One picture: {"covering", "pri", "vi"} of (h, w) integers against one (h, w) an annotator.

    covering: how well the human segments are overlapped, weighted by area; pri: share of the pairs
    of pixels on which both agree; vi: bits in which they differ, 0 for the same. The mean over the
    annotators. Arbelaez et al. 2011, section 3.1. Raises ValueError for arrays that do not fit.
    """
    found = per_image_counts([segmentation], ground_truths, with_boundaries=False).regions
    covering = found.covered[0] / found.area
    return {"covering": float(covering), "pri": float(found.pri[0]), "vi": float(found.vi[0])}


def benchmark(
    predictions: Iterable[Sequence[ArrayLike]],
    ground_truths: Iterable[Sequence[ArrayLike]],
    with_boundaries: bool = True,
) -> dict[str, float]:
    """What `summary` says of pictures x scales against pictures x annotators, (h, w) integers each.

    The scales of all pictures are the same, in one order, fine to coarse or coarse to fine.
    with_boundaries: also precision, recall and F of the boundaries, which take most of the time.
    """
    images = zip(predictions, ground_truths, strict=True)
    return summary([per_image_counts(scales, truths, with_boundaries) for scales, truths in images])


@dataclass(frozen=True)
class ImageCounts:
    """What one picture brings to the scores; boundaries: (scales, 4), see `boundaries.counts`."""

    regions: region_metrics.RegionScores
    boundaries: np.ndarray | None


def per_image_counts(
    scales: Sequence[ArrayLike],
    truths: Sequence[ArrayLike],
    with_boundaries: bool = True,
    edges: Sequence[np.ndarray] | None = None,
    true_edges: Sequence[np.ndarray] | None = None,
) -> ImageCounts:
    """One picture: its scales against its annotators, (h, w) integers each; ValueError.

    edges, true_edges: thin boundaries of the two, bool (h, w) each, where they are known already.
    """
    scales = [_map(labels, "a prediction") for labels in scales]
    truths = [_map(truth, "a ground truth") for truth in truths]
    for name, maps in (("prediction", scales), ("ground truth", truths)):
        if not maps:
            raise ValueError(f"an image has no {name}: one or more was expected")
    for labels in (*scales, *truths):
        if labels.shape != truths[0].shape:
            raise ValueError(f"a map is {labels.shape}, the first ground truth {truths[0].shape}")
    regions = region_metrics.region_scores(scales, truths)
    if not with_boundaries:
        return ImageCounts(regions, None)
    if edges is None:
        edges = [boundaries.of_labels(labels) for labels in scales]
    if true_edges is None:
        true_edges = [boundaries.of_labels(truth) for truth in truths]
    counts: list[tuple[int, int, int, int]] = []
    for i, edge in enumerate(edges):
        same = i and np.array_equal(edge, edges[i - 1])  # as fine thresholds of a contour map are
        counts.append(counts[-1] if same else boundaries.counts(edge, true_edges))
    return ImageCounts(regions, np.array(counts))


def summary(images: Sequence[ImageCounts]) -> dict[str, float]:
    """The scores of a data set, as the official tool collects them.

    _ods: the scale that is best for all pictures; _ois: each picture's best. covering is pooled
    over pictures and annotators, covering_best takes the best scale of each human segment; pri and
    vi (in bits, less is better) are means over pictures; f, precision and recall are of pooled
    boundary pixels, those at ODS between two scales where that is better. Raises ValueError where
    pictures differ in their number of scales.
    """
    if not len(images):
        raise ValueError("there is no image to score")
    lengths = {len(image.regions.covered) for image in images}
    if len(lengths) > 1:
        raise ValueError(f"images have {sorted(lengths)} scales: one number was expected")
    regions = [image.regions for image in images]
    covered = np.array([one.covered for one in regions])  # (images, scales)
    pri, vi = np.array([one.pri for one in regions]), np.array([one.vi for one in regions])
    area = sum(one.area for one in regions)
    scores = {
        "covering_ods": covered.sum(axis=0).max() / area,
        "covering_ois": covered.max(axis=1).sum() / area,
        "covering_best": sum(one.best for one in regions) / area,
        "pri_ods": pri.mean(axis=0).max(),
        "pri_ois": pri.max(axis=1).mean(),
        "vi_ods": vi.mean(axis=0).min(),
        "vi_ois": vi.min(axis=1).mean(),
    }
    if images[0].boundaries is not None:
        counts = np.array([image.boundaries for image in images])  # (images, scales, 4)
        best = _f_measure(*_recall_precision(counts)).argmax(axis=1)
        scores |= _between(*_recall_precision(counts.sum(axis=0)))
        recall, precision = _recall_precision(counts[np.arange(len(images)), best].sum(axis=0))
        scores["f_ois"] = _f_measure(recall, precision)
        scores |= {"precision_ois": precision, "recall_ois": recall}
    return {name: float(score) for name, score in scores.items()}


def _recall_precision(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found, true, right, predicted = np.moveaxis(counts, -1, 0)
    return found / np.maximum(true, 1), right / np.maximum(predicted, 1)


def _f_measure(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    total = recall + precision
    return 2 * recall * precision / np.where(total == 0, 1, total)


def _between(recall: np.ndarray, precision: np.ndarray) -> dict[str, float]:
    """The best F of all scales, and of 100 points on the line between each and the next."""
    share = np.linspace(0, 1, 100)
    if len(recall) > 1:
        recall, precision = (
            (one[:-1, None] * (1 - share) + one[1:, None] * share).ravel()
            for one in (recall, precision)
        )
    f = _f_measure(recall, precision)
    best = f.argmax()
    return {"f_ods": f[best], "precision_ods": precision[best], "recall_ods": recall[best]}


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
