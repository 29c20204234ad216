"""Scores of clusters, embeddings and segmentations against labels."""

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


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information over the arithmetic mean of the two entropies, in [0, 1].

    labels, clusters (n,) integers from 0. Two partitions without any split count as equal: 1.
    """
    return float(normalized_mutual_info_score(*_partitions(labels, clusters)))


def ami(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information corrected for chance: 1 is the same partition, 0 what random ones get.

    labels, clusters (n,) integers from 0. Arithmetic mean, as `nmi`, which grows with the number of
    clusters; this one does not.
    """
    return float(adjusted_mutual_info_score(*_partitions(labels, clusters)))


def adjusted_rand(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Rand index corrected for chance: 1 is the same partition, 0 what random ones get on average.

    labels, clusters (n,) integers from 0.
    """
    return float(adjusted_rand_score(*_partitions(labels, clusters)))


def clustering_accuracy(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Share of items whose cluster stands for their label, under the best one-to-one map.

    labels, clusters (n,) integers from 0. Where there are more clusters than classes, those left
    without a class are errors; so are the classes left without a cluster.
    """
    counts = contingency_matrix(*_partitions(labels, clusters))  # (classes, clusters)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / counts.sum())


def purity(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Share of items that have the most frequent label of their cluster.

    labels, clusters (n,) integers from 0. It only grows with the number of clusters: no accuracy.
    """
    counts = contingency_matrix(*_partitions(labels, clusters))
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
    """Share of items with one of their own label among the k others nearest to them (Euclidean).

    embeddings (n, d); labels (n,). An item alone in its class is never found; a k beyond n - 1
    means all others.
    """
    embeddings, labels = _embedded(embeddings, labels)
    ks = list(ks)
    if not ks or min(ks) < 1:
        raise ValueError(f"ks is {ks}: one k or more, each at least 1, were expected")
    found = np.zeros(max(ks))
    for rows, nearest in _neighbours(embeddings, max(ks)):
        same = labels[nearest] == labels[rows, None]  # (rows, k)
        found[: same.shape[1]] += np.logical_or.accumulate(same, axis=1).sum(axis=0)
        found[same.shape[1] :] += same.any(axis=1).sum()
    return {k: float(found[k - 1] / len(labels)) for k in ks}


def map_at_r(embeddings: ArrayLike, labels: ArrayLike) -> float:
    """Mean average precision over each item's R nearest others, R being how many share its label.

    embeddings (n, d); labels (n,). Items alone in their class have no R and are left out.
    Raises ValueError where all are. Musgrave et al. 2020, "A metric learning reality check", 3.2.
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

    embeddings (n, d); labels (n,); gallery: embeddings (m, d) and labels (m,) to search in; None:
    the items themselves, each without itself. n_unmatched items have nothing of their label to
    find: recall counts them as misses, the other two leave them out and are absent where all are.
    r_precision is the share of its own label among an item's R nearest; see `map_at_r`.
    """
    embeddings, labels = _embedded(embeddings, labels, 1 if gallery else 2)
    sought, names = (embeddings, labels) if gallery is None else _embedded(*gallery, 1)
    if sought.shape[1] != embeddings.shape[1]:
        raise ValueError(f"embeddings are {embeddings.shape}, the gallery's {sought.shape}")
    ks = list(ks)
    found, counts = np.unique(names, return_counts=True)
    place = np.minimum(np.searchsorted(found, labels), len(found) - 1)
    n_relevant = np.where(found[place] == labels, counts[place], 0) - (gallery is None)  # (n,) R
    hits, precision, average = np.zeros(max(ks)), 0.0, 0.0
    for rows, nearest in _neighbours(embeddings, max(*ks, n_relevant.max()), gallery and sought):
        same = names[nearest] == labels[rows, None]  # (rows, k)
        met = np.logical_or.accumulate(same[:, : max(ks)], axis=1).sum(axis=0)
        hits += np.pad(met, (0, max(ks) - len(met)), "edge")
        rank = np.arange(1, same.shape[1] + 1)
        same &= rank <= n_relevant[rows, None]
        r = np.maximum(n_relevant[rows], 1)
        precision += (same.sum(axis=1) / r).sum()
        average += ((same * (same.cumsum(axis=1) / rank)).sum(axis=1) / r).sum()
    scores: dict[str, float] = {f"recall_at_{k}": float(hits[k - 1] / len(labels)) for k in ks}
    n_matched = np.count_nonzero(n_relevant)
    if n_matched:
        scores |= {"map_at_r": float(average / n_matched)}
        scores |= {"r_precision": float(precision / n_matched)}
    return scores | {"n_unmatched": len(labels) - n_matched}


def mean_iou(
    truth: ArrayLike | Iterable[ArrayLike],
    predicted: ArrayLike | Iterable[ArrayLike],
    n_classes: int,
    ignore: int | None = None,
) -> dict[str, float | list[float]]:
    """Intersection over union of every class, pooled over all pixels, and its mean.

    truth, predicted: two arrays of one shape, or one array an image, of classes in [0, n_classes).
    Pixels whose truth is `ignore` are left out. A class that neither has is NaN in per_class and
    stays out of the mean.
    """
    counts = np.zeros((n_classes, n_classes), np.int64)
    for t, p in _images(truth, predicted, None):
        counts += confusion(t, p, n_classes, ignore)
    scores = confusion_scores(counts)
    return {name: scores[name] for name in ("miou", "per_class", "pixel_accuracy")}


def confusion(
    truth: ArrayLike, predicted: ArrayLike, n_classes: int, ignore: int | None = None
) -> np.ndarray:
    """How many pixels of each class were called what: (n_classes, n_classes) int64, (true, said).

    truth, predicted: integers of one shape, in [0, n_classes) but where truth is `ignore`. Matrices
    of several images are added. Raises ValueError for other classes.
    """
    ((t, p),) = _images([truth], [predicted], ignore)
    if n_classes <= 256 and t.dtype == p.dtype == np.uint8:  # two bytes a pair fit into a cache
        pairs = t * np.uint16(n_classes) + p
        n_wrong = max(int(t.max(initial=0)), int(p.max(initial=0))) >= n_classes
    else:
        pairs = t.astype(np.int64) * n_classes + p
        n_wrong = t.size and (min(t.min(), p.min()) < 0 or max(t.max(), p.max()) >= n_classes)
    if n_wrong:
        for name, classes in (("truth", t), ("predicted", p)):
            for wrong in classes[(classes < 0) | (classes >= n_classes)][:1]:
                raise ValueError(f"{name} has class {wrong}: 0 to {n_classes - 1} were expected")
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def confusion_scores(counts: ArrayLike) -> dict[str, float | list[float]]:
    """What is made of a confusion matrix (true, said): miou, per_class, pixel_accuracy, ...

    mean_accuracy is the mean over classes of the share that is found, weighted_iou the mean of IoU
    by how many pixels a class has. A class that nobody has or says is NaN in per_class and stays
    out of all means. Raises ValueError for a matrix without a pixel.
    """
    counts = np.asarray(counts)
    if not counts.any():
        raise ValueError("there is no pixel to score: the images are empty or all ignored")
    hits, of_class = np.diag(counts).astype(np.float64), counts.sum(axis=1)
    union = counts.sum(axis=0) + of_class - hits
    nothing = np.full(len(counts), np.nan)
    per_class = np.divide(hits, union, out=nothing.copy(), where=union > 0)
    found = np.divide(hits, of_class, out=nothing, where=of_class > 0)
    return {
        "miou": float(np.nanmean(per_class)),
        "per_class": per_class.tolist(),
        "pixel_accuracy": float(hits.sum() / counts.sum()),
        "mean_accuracy": float(np.nanmean(found)),
        "weighted_iou": float(np.nansum(per_class * of_class) / of_class.sum()),
    }


def pixel_accuracy(
    truth: ArrayLike | Iterable[ArrayLike],
    predicted: ArrayLike | Iterable[ArrayLike],
    ignore: int | None = None,
) -> float:
    """Share of pixels with the right class, pooled over all images; arguments as in mean_iou."""
    hits = total = 0
    for t, p in _images(truth, predicted, ignore):
        hits += np.count_nonzero(t == p)
        total += t.size
    if not total:
        raise ValueError("there is no pixel to score: the images are empty or all ignored")
    return hits / total


def _partitions(labels: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    labels, clusters = np.asarray(labels), np.asarray(clusters)
    if labels.shape != clusters.shape or labels.ndim != 1 or not labels.size:
        found = f"labels {labels.shape} and clusters {clusters.shape}"
        raise ValueError(f"{found}: two of the same shape (n,), n > 0, were expected")
    for name, values in (("labels", labels), ("clusters", clusters)):
        if values.dtype.kind not in "iub":
            raise ValueError(f"{name} are {values.dtype}: integers were expected")
        if values.min() < 0:
            raise ValueError(f"{name} go down to {values.min()}: leave items without one out")
    return labels, clusters


def _embedded(
    embeddings: ArrayLike, labels: ArrayLike, least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    embeddings, labels = np.asarray(embeddings), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or len(labels) < least:
        found = f"embeddings {embeddings.shape} and labels {labels.shape}"
        raise ValueError(f"{found}: (n, d) and (n,), n > {least - 1}, were expected")
    if embeddings.dtype != np.float32:
        embeddings = embeddings.astype(np.float64)
    if not np.isfinite(embeddings).all():
        raise ValueError("embeddings have a NaN or an infinity")
    return embeddings, labels


def _neighbours(
    embeddings: np.ndarray, k: int, gallery: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The k nearest to each item, nearest first, in blocks of about 2**22 distances.

    embeddings (n, d), gallery (m, d), or None for the others of the items -> rows (b,), indices
    (b, min(k, m)), m being n - 1 for the others
    """
    sought = embeddings if gallery is None else gallery
    k = min(k, len(sought) - (gallery is None))
    middle = sought.mean(axis=0)  # |x|^2 - 2xy cancels far from the origin
    embeddings, sought = embeddings - middle, sought - middle
    squares = (sought**2).sum(axis=1)
    for rows in np.array_split(
        np.arange(len(embeddings)), -(-len(embeddings) * len(sought) // 2**22)
    ):
        # (b, m) squared distances, each row short of its own |x|^2, which changes no order
        distances = squares - 2 * (embeddings[rows] @ sought.T)
        if gallery is None:
            distances[np.arange(len(rows)), rows] = np.inf
        nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
        order = np.take_along_axis(distances, nearest, axis=1).argsort(axis=1)
        yield rows, np.take_along_axis(nearest, order, axis=1)


def _images(
    truth: ArrayLike | Iterable[ArrayLike],
    predicted: ArrayLike | Iterable[ArrayLike],
    ignore: int | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Flat truth and prediction of each image, without the ignored pixels."""
    if isinstance(truth, np.ndarray) and isinstance(predicted, np.ndarray):
        truth, predicted = [truth], [predicted]
    for t, p in zip(truth, predicted, strict=True):
        t, p = np.asarray(t), np.asarray(p)
        if t.shape != p.shape:
            raise ValueError(f"truth {t.shape} and predicted {p.shape} differ in shape")
        if t.dtype.kind not in "iub" or p.dtype.kind not in "iub":
            raise ValueError(f"truth is {t.dtype}, predicted {p.dtype}: integers were expected")
        kept = slice(None) if ignore is None else t.ravel() != ignore
        yield t.ravel()[kept], p.ravel()[kept]
