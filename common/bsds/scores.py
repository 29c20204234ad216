"""Scores of segmentations against several human annotators (BSDS protocol)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.bsds import boundaries, region_metrics


def region_scores(segmentation: ArrayLike, ground_truths: Sequence[ArrayLike]) -> dict[str, float]:
    """{"covering", "pri", "vi"} of one image: labels (h, w) against one (h, w) per annotator.

    covering: best IoU of each human segment, weighted by its area; pri: probabilistic Rand index;
    vi: variation of information in bits, 0 for equal segmentations. Means over the annotators.
    Arbelaez et al. 2011, section 3.1. Raises ValueError for shapes that differ.
    """
    regions = per_image_counts([segmentation], ground_truths, with_boundaries=False).regions
    covering = regions.covered[0] / regions.area
    return {"covering": float(covering), "pri": float(regions.pri[0]), "vi": float(regions.vi[0])}


def benchmark(
    predictions: Iterable[Sequence[ArrayLike]],
    ground_truths: Iterable[Sequence[ArrayLike]],
    with_boundaries: bool = True,
) -> dict[str, float]:
    """The scores of `summary`: images x scales against images x annotators, (h, w) integers each.

    All images have the same scales, ordered from fine to coarse or from coarse to fine.
    with_boundaries: also precision, recall and F of the boundaries, which take most of the time.
    """
    pairs = zip(predictions, ground_truths, strict=True)
    return summary([per_image_counts(scales, truths, with_boundaries) for scales, truths in pairs])


@dataclass(frozen=True)
class ImageCounts:
    """What the scores of a dataset need of one image; boundaries (scales, 4) or None.

    Each row of boundaries is `boundaries.counts`.
    """

    regions: region_metrics.RegionScores
    boundaries: np.ndarray | None


def per_image_counts(
    scales: Sequence[ArrayLike],
    ground_truths: Sequence[ArrayLike],
    with_boundaries: bool = True,
    edges: Sequence[np.ndarray] | None = None,
    true_edges: Sequence[np.ndarray] | None = None,
) -> ImageCounts:
    """The counts of one image: its scales against its annotators, (h, w) integers each.

    edges, true_edges: thin boundaries of both, bool (h, w) each; None: computed from the labels.
    Raises ValueError for shapes that differ.
    """
    scales = [_check_map(labels, "a prediction") for labels in scales]
    truths = [_check_map(truth, "a ground truth") for truth in ground_truths]
    for name, maps in (("prediction", scales), ("ground truth", truths)):
        if not maps:
            raise ValueError(f"an image has no {name}: expected one or more")
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
        repeats = i and np.array_equal(edge, edges[i - 1])  # common for a contour map's thresholds
        counts.append(counts[-1] if repeats else boundaries.counts(edge, true_edges))
    return ImageCounts(regions, np.array(counts))


def summary(images: Sequence[ImageCounts]) -> dict[str, float]:
    """The scores of a dataset, aggregated as by the official tool.

    *_ods: at the best scale for the whole dataset; *_ois: at the best scale of each image. covering
    is pooled over images and annotators, covering_best takes the best scale for each human segment;
    pri and vi (in bits, lower is better) are means over images; f, precision and recall are of
    pooled boundary pixels, at ODS interpolated between scales. Raises ValueError if images differ
    in their number of scales.
    """
    if not len(images):
        raise ValueError("there is no image to score")
    lengths = {len(image.regions.covered) for image in images}
    if len(lengths) > 1:
        raise ValueError(f"images have {sorted(lengths)} scales: expected the same number for all")
    covered, pri, vi = (
        np.array([getattr(image.regions, name) for image in images])  # (images, scales)
        for name in ("covered", "pri", "vi")
    )
    area = sum(image.regions.area for image in images)
    scores = {
        "covering_ods": covered.sum(axis=0).max() / area,
        "covering_ois": covered.max(axis=1).sum() / area,
        "covering_best": sum(image.regions.best for image in images) / area,
        "pri_ods": pri.mean(axis=0).max(),
        "pri_ois": pri.max(axis=1).mean(),
        "vi_ods": vi.mean(axis=0).min(),
        "vi_ois": vi.min(axis=1).mean(),
    }
    if images[0].boundaries is not None:
        counts = np.array([image.boundaries for image in images])  # (images, scales, 4)
        best = _f_measure(*_recall_precision(counts)).argmax(axis=1)
        scores |= _interpolated_best_f(*_recall_precision(counts.sum(axis=0)))
        recall, precision = _recall_precision(counts[np.arange(len(images)), best].sum(axis=0))
        scores["f_ois"] = _f_measure(recall, precision)
        scores |= {"precision_ois": precision, "recall_ois": recall}
    return {name: float(score) for name, score in scores.items()}


def _recall_precision(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    recalled, true, correct, predicted = np.moveaxis(counts, -1, 0)
    return recalled / np.maximum(true, 1), correct / np.maximum(predicted, 1)


def _f_measure(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    total = recall + precision
    return 2 * recall * precision / np.where(total == 0, 1, total)


def _interpolated_best_f(recall: np.ndarray, precision: np.ndarray) -> dict[str, float]:
    """The best F among 100 linearly interpolated points between each scale and the next."""
    weight = np.linspace(0, 1, 100)
    if len(recall) > 1:
        recall, precision = (
            (values[:-1, None] * (1 - weight) + values[1:, None] * weight).ravel()
            for values in (recall, precision)
        )
    f = _f_measure(recall, precision)
    best = f.argmax()
    return {"f_ods": f[best], "precision_ods": precision[best], "recall_ods": recall[best]}


def best_overlap_miou(
    predictions: Iterable[ArrayLike],
    ground_truths: Iterable[Sequence[ArrayLike]],
    connectivity: int = 8,
) -> dict[str, float]:
    """Mean over all human segments of their best IoU with a predicted segment.

    predictions: one (h, w) of integers per image; ground_truths: for each image one (h, w) per
    annotator. Predictions are first split into connected components, see `components`; several
    human segments may have the same best one. The mean is over the segments of the whole dataset:
    "all" of all annotators, "fine" of the annotator with the most segments for each image, "coarse"
    of the one with the fewest, "mean" is the mean of the three. Protocol of the code of Kim et al.
    2020. Raises ValueError for shapes that differ.
    """
    pairs = zip(predictions, ground_truths, strict=True)
    return pool([overlaps(predicted, truths, connectivity) for predicted, truths in pairs])


def overlaps(
    predicted: ArrayLike, ground_truths: Sequence[ArrayLike], connectivity: int = 8
) -> list[list[float]]:
    """For each annotator of one image the best IoU of each segment, in [0, 1].

    predicted (h, w), ground_truths each (h, w), integers. connectivity as in `components`; 0: the
    prediction is not split. Raises ValueError for shapes that differ.
    """
    predicted = _check_map(predicted, "the prediction")
    if not len(ground_truths):
        raise ValueError("an image has no ground truth: expected one annotator or more")
    pieces = components(predicted, connectivity) if connectivity else predicted
    pieces = np.unique(pieces, return_inverse=True)[1].ravel()
    areas = np.bincount(pieces)
    best = []
    for truth in ground_truths:
        truth = _check_map(truth, "a ground truth")
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
    """The scores of `best_overlap_miou` from the `overlaps` of each image."""
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
    """Connected components of equal labels, numbered row by row from 0: (h, w) -> (h, w) int.

    connectivity 4 joins pixels with a common side, 8 also pixels with a common corner.
    """
    labels = _check_map(labels, "the labels")
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


def _check_map(values: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "iub":
        raise ValueError(f"{name} is {values.shape} of {values.dtype}: expected (h, w) of integers")
    return values
