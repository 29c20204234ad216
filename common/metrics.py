"""Scores of clusters, embeddings and segmentations against labels."""

import operator
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
)
from sklearn.metrics.cluster import contingency_matrix

from common.ranking import rankings


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Normalized mutual information, in [0, 1], with the arithmetic mean of the two entropies.

    labels, clusters (n,) integers from 0. It is 1 if there is one class and one cluster.
    """
    return float(normalized_mutual_info_score(*_check_partitions(labels, clusters)))


def ami(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Adjusted mutual information: 1 for equal partitions, 0 expected for random ones.

    labels, clusters (n,) integers from 0. Unlike NMI it does not grow with the number of clusters.
    """
    return float(adjusted_mutual_info_score(*_check_partitions(labels, clusters)))


def adjusted_rand(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Adjusted Rand index: 1 for equal partitions, 0 expected for random ones.

    labels, clusters (n,) integers from 0.
    """
    return float(adjusted_rand_score(*_check_partitions(labels, clusters)))


def clustering_accuracy(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Accuracy under the best one-to-one mapping of clusters to classes (Hungarian algorithm).

    labels, clusters (n,) integers from 0. Items of unmatched clusters and classes count as errors.
    """
    counts = contingency_matrix(*_check_partitions(labels, clusters))  # (classes, clusters)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / counts.sum())


def purity(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Fraction of items that have the most frequent label of their cluster.

    labels, clusters (n,) integers from 0. It grows with the number of clusters: not an accuracy.
    """
    counts = contingency_matrix(*_check_partitions(labels, clusters))
    return float(counts.max(axis=0).sum() / counts.sum())


def agreement(labels: ArrayLike, clusters: ArrayLike) -> dict[str, float]:
    """Accuracy, NMI, adjusted Rand index and purity of clusters (n,) given labels (n,)."""
    return {
        "acc": clustering_accuracy(labels, clusters),
        "nmi": nmi(labels, clusters),
        "ari": adjusted_rand(labels, clusters),
        "purity": purity(labels, clusters),
    }


def recall_at_k(
    embeddings: ArrayLike, labels: ArrayLike, ks: Iterable[int] = (1, 2, 4, 8)
) -> dict[int, float]:
    """Fraction of items with an item of the same label among their k nearest others (Euclidean).

    embeddings (n, d); labels (n,). Items alone in their class count as misses; a k above n - 1
    means all others. Ties as in `retrieval_scores`.
    """
    embeddings, labels = _check_embeddings(embeddings, labels)
    ks = _check_ks(ks)
    n_hits = sum(ranking.hits(max(ks)) for ranking in rankings(embeddings, labels, max(ks)))
    return {k: float(n_hits[k - 1] / len(labels)) for k in ks}


def map_at_r(embeddings: ArrayLike, labels: ArrayLike) -> float:
    """MAP@R: mean average precision at R, the number of other items with the same label.

    embeddings (n, d); labels (n,). Items alone in their class are left out; raises ValueError if
    all are. Ties as in `retrieval_scores`. Musgrave et al. 2020, "A metric learning reality check",
    section 3.2.
    """
    scores = retrieval_scores(embeddings, labels)
    if "map_at_r" not in scores:
        raise ValueError("no two of the labels are equal: MAP@R needs a class with two items")
    return scores["map_at_r"]


def retrieval_scores(
    embeddings: ArrayLike,
    labels: ArrayLike,
    ks: Iterable[int] = (1, 2, 4, 8),
    gallery: tuple[ArrayLike, ArrayLike] | None = None,
) -> dict[str, float]:
    """recall_at_K for each of ks, map_at_r, r_precision and n_unmatched, in one pass.

    embeddings (n, d); labels (n,); gallery: embeddings (m, d) and labels (m,) to search; None: the
    other items. n_unmatched items have no match of their label: recall counts them as misses,
    map_at_r and r_precision leave them out, and are missing from the result if all are left out.
    r_precision is the fraction of an item's label among its R nearest, see `map_at_r`.

    Items at the same distance, up to rounding, have no order: all scores are expected values over
    a random one (McSherry and Najork 2008, "Computing information retrieval performance measures
    efficiently in the presence of tied scores"). The order of the rows makes no difference.
    """
    embeddings, labels = _check_embeddings(embeddings, labels, 1 if gallery else 2)
    keys, key_labels = (
        (embeddings, labels) if gallery is None else _check_embeddings(*gallery, minimum=1)
    )
    if keys.shape[1] != embeddings.shape[1]:
        raise ValueError(f"embeddings are {embeddings.shape}, the gallery's {keys.shape}")
    ks = _check_ks(ks)
    classes, counts = np.unique(key_labels, return_counts=True)
    n_keys = len(keys) - (gallery is None)
    k = min(n_keys, max(*ks, int(counts.max()) - (gallery is None)))
    hits, precision, average, n_matched = np.zeros(max(ks)), 0.0, 0.0, 0
    for ranking in rankings(embeddings, labels, k, gallery and (keys, key_labels)):
        n_relevant = _count(ranking.labels, classes, counts) - (gallery is None)  # (b,) R
        hits += ranking.hits(max(ks))
        cut = np.arange(1, k + 1) <= n_relevant[:, None]
        r = np.maximum(n_relevant, 1)
        precision += float((np.where(cut, ranking.relevant, 0).sum(axis=1) / r).sum())
        average += float((np.where(cut, ranking.precisions(), 0).sum(axis=1) / r).sum())
        n_matched += int(np.count_nonzero(n_relevant))
    scores: dict[str, float] = {f"recall_at_{k}": float(hits[k - 1] / len(labels)) for k in ks}
    if n_matched:
        scores |= {"map_at_r": average / n_matched, "r_precision": precision / n_matched}
    return scores | {"n_unmatched": len(labels) - n_matched}


def mean_average_precision(
    embeddings: ArrayLike, labels: ArrayLike, gallery: tuple[ArrayLike, ArrayLike]
) -> float:
    """Mean over queries of the average precision of the gallery ranked by Euclidean distance.

    embeddings (n, d), labels (n,) of the queries; gallery: (m, d) and (m,). Queries whose label is
    not in the gallery are left out; 0 if all are. Ties as in `retrieval_scores`.
    """
    embeddings, labels = _check_embeddings(embeddings, labels, 1)
    keys, key_labels = _check_embeddings(*gallery, minimum=1)
    total, n_counted = 0.0, 0
    for ranking in rankings(embeddings, labels, len(keys), (keys, key_labels)):
        n_relevant = ranking.relevant.sum(axis=1).round()
        total += float((ranking.precisions().sum(axis=1) / np.maximum(n_relevant, 1)).sum())
        n_counted += int(np.count_nonzero(n_relevant))
    return total / max(n_counted, 1)


def mean_iou(
    truth: ArrayLike | Iterable[ArrayLike],
    predicted: ArrayLike | Iterable[ArrayLike],
    n_classes: int,
    ignore: int | None = None,
) -> dict[str, float | list[float]]:
    """Intersection over union of every class, pooled over all pixels, and its mean.

    truth, predicted: two arrays of equal shape, or one array per image, of classes in
    [0, n_classes). Pixels whose truth is `ignore` are left out. A class that is neither true nor
    predicted is NaN in per_class and left out of the mean.
    """
    counts = np.zeros((n_classes, n_classes), np.int64)
    for t, p in _flat_pairs(truth, predicted, None):
        counts += confusion(t, p, n_classes, ignore)
    scores = confusion_scores(counts)
    return {name: scores[name] for name in ("miou", "per_class", "pixel_accuracy")}


def confusion(
    truth: ArrayLike, predicted: ArrayLike, n_classes: int, ignore: int | None = None
) -> np.ndarray:
    """Confusion matrix in pixels: (n_classes, n_classes) int64, (true class, predicted class).

    truth, predicted: integers of equal shape, in [0, n_classes) except where truth is `ignore`.
    Raises ValueError for other classes.
    """
    ((t, p),) = _flat_pairs([truth], [predicted], ignore)
    if n_classes <= 256 and t.dtype == p.dtype == np.uint8:  # two bytes per pair: fits in the cache
        pairs = t * np.uint16(n_classes) + p
        is_invalid = max(int(t.max(initial=0)), int(p.max(initial=0))) >= n_classes
    else:
        pairs = t.astype(np.int64) * n_classes + p
        is_invalid = t.size and (min(t.min(), p.min()) < 0 or max(t.max(), p.max()) >= n_classes)
    if is_invalid:
        for name, classes in (("truth", t), ("predicted", p)):
            for invalid in classes[(classes < 0) | (classes >= n_classes)][:1]:
                raise ValueError(f"{name} has class {invalid}: expected 0 to {n_classes - 1}")
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def confusion_scores(counts: ArrayLike) -> dict[str, float | list[float]]:
    """Scores of a confusion matrix (true class, predicted class).

    miou, per_class (IoU), pixel_accuracy, mean_accuracy (mean recall of the classes) and
    weighted_iou (IoU weighted by the true pixels of each class). A class that is neither true nor
    predicted is NaN in per_class and left out of all means. Raises ValueError if all counts are 0.
    """
    counts = np.asarray(counts)
    if not counts.any():
        raise ValueError("there is no pixel to score: the images are empty or all ignored")
    hits, n_true = np.diag(counts).astype(np.float64), counts.sum(axis=1)
    union = counts.sum(axis=0) + n_true - hits
    nan = np.full(len(counts), np.nan)
    per_class = np.divide(hits, union, out=nan.copy(), where=union > 0)
    recall = np.divide(hits, n_true, out=nan, where=n_true > 0)
    return {
        "miou": float(np.nanmean(per_class)),
        "per_class": per_class.tolist(),
        "pixel_accuracy": float(hits.sum() / counts.sum()),
        "mean_accuracy": float(np.nanmean(recall)),
        "weighted_iou": float(np.nansum(per_class * n_true) / n_true.sum()),
    }


def pixel_accuracy(
    truth: ArrayLike | Iterable[ArrayLike],
    predicted: ArrayLike | Iterable[ArrayLike],
    ignore: int | None = None,
) -> float:
    """Fraction of pixels with the correct class, over all images; arguments as in `mean_iou`."""
    hits = total = 0
    for t, p in _flat_pairs(truth, predicted, ignore):
        hits += int(np.count_nonzero(t == p))
        total += t.size
    if not total:
        raise ValueError("there is no pixel to score: the images are empty or all ignored")
    return hits / total


def _check_partitions(labels: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    labels, clusters = np.asarray(labels), np.asarray(clusters)
    if labels.shape != clusters.shape or labels.ndim != 1 or not labels.size:
        raise ValueError(
            f"labels {labels.shape} and clusters {clusters.shape}: expected both (n,), n > 0"
        )
    for name, values in (("labels", labels), ("clusters", clusters)):
        if values.dtype.kind not in "iub":
            raise ValueError(f"{name} are {values.dtype}: expected integers")
        if values.min() < 0:
            raise ValueError(f"the minimum of {name} is {values.min()}: leave out unlabeled items")
    return labels, clusters


def _check_embeddings(
    embeddings: ArrayLike, labels: ArrayLike, minimum: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    embeddings, labels = np.asarray(embeddings), np.asarray(labels)
    is_pair = embeddings.ndim == 2 and labels.shape == embeddings.shape[:1]
    if not is_pair or len(labels) < minimum or not embeddings.size:
        raise ValueError(
            f"embeddings {embeddings.shape} and labels {labels.shape}: "
            f"expected (n, d) and (n,), n >= {minimum}"
        )
    if labels.dtype.kind == "O" or (labels.dtype.kind == "f" and np.isnan(labels).any()):
        raise ValueError("labels are objects or NaN: expected integers or strings")
    if embeddings.dtype != np.float32:
        embeddings = embeddings.astype(np.float64)
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings contain NaN or infinity")
    return embeddings, labels


def _check_ks(ks: Iterable[int]) -> list[int]:
    ks = list(ks)
    if not ks or min(ks) < 1:
        raise ValueError(f"ks is {ks}: expected one k or more, each at least 1")
    return [operator.index(k) for k in ks]


def _count(labels: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The count (n,) of each label, 0 if it is not among the sorted classes."""
    index = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    return np.where(classes[index] == labels, counts[index], 0)


def _flat_pairs(
    truth: ArrayLike | Iterable[ArrayLike],
    predicted: ArrayLike | Iterable[ArrayLike],
    ignore: int | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Truth and prediction of each image, flattened, without the ignored pixels."""
    if isinstance(truth, np.ndarray) and isinstance(predicted, np.ndarray):
        truth, predicted = [truth], [predicted]
    for t, p in zip(truth, predicted, strict=True):
        t, p = np.asarray(t), np.asarray(p)
        if t.shape != p.shape:
            raise ValueError(f"truth {t.shape} and predicted {p.shape} differ in shape")
        if t.dtype.kind not in "iub" or p.dtype.kind not in "iub":
            raise ValueError(f"truth is {t.dtype}, predicted {p.dtype}: expected integers")
        kept = slice(None) if ignore is None else t.ravel() != ignore
        yield t.ravel()[kept], p.ravel()[kept]
