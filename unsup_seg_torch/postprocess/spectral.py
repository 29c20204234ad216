"""Normalized cuts of image features (Shi and Malik 2000; Ng, Jordan and Weiss 2001)."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import eigsh

from common import duplicates

MAX_DENSE = 1200  # points up to which the dense eigenproblem is solved
MIN_AFFINITY = 1e-6  # between neighbors, so that the graph stays connected


def affinities(
    features: ArrayLike, radius: float = 8, sigma: float = 0.1, sigma_position: float = 6
) -> csr_array:
    """Affinities between the points of a grid: features (h, w, d) -> (h w, h w), symmetric.

    exp(-|f_i - f_j|^2 / sigma^2 - |x_i - x_j|^2 / sigma_position^2) for points closer than radius,
    in grid steps. Features may be colors, probabilities, or patch features of a transformer.
    """
    features = np.asarray(features, np.float64)
    h, w, _ = features.shape
    index = np.arange(h * w).reshape(h, w)
    reach = int(np.ceil(radius)) - 1
    rows, columns, values = [index.ravel()], [index.ravel()], [np.ones(h * w)]
    for dy in range(min(reach, h - 1) + 1):
        for dx in range(-min(reach, w - 1), min(reach, w - 1) + 1):
            squared = dy * dy + dx * dx
            if (dy, dx) <= (0, 0) or squared >= radius**2:
                continue
            here = np.s_[: h - dy, max(-dx, 0) : w - max(dx, 0)]
            there = np.s_[dy:, max(dx, 0) : w - max(-dx, 0)]
            differences = ((features[here] - features[there]) ** 2).sum(-1)
            weights = np.exp(-differences / sigma**2 - squared / sigma_position**2)
            rows += [index[here].ravel(), index[there].ravel()]
            columns += [index[there].ravel(), index[here].ravel()]
            values += [np.maximum(weights, MIN_AFFINITY).ravel()] * 2
    indices = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.concatenate(values), indices), shape=(h * w, h * w))


def eigenvectors(affinities: csr_array | np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest solutions of (D - W) x = lambda D x: values (k,), vectors (n, k).

    affinities W (n, n): symmetric, not negative. The first vector is constant; signs are such that
    the largest entry by magnitude is positive. Raises ValueError unless 1 <= k <= n.
    """
    n = affinities.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"{k} eigenvectors of {n} points: expected 1 to {n}")
    scale = 1 / np.sqrt(np.asarray(affinities.sum(1)).ravel())
    if n <= max(MAX_DENSE, 3 * k):
        dense = affinities if isinstance(affinities, np.ndarray) else affinities.toarray()
        normalized = scale[:, None] * dense * scale
        values, vectors = eigh(np.eye(n) - normalized, subset_by_index=(0, k - 1))
    else:
        diagonal = diags_array(scale)
        normalized = csr_array(diagonal @ csr_array(affinities) @ diagonal)
        # the smallest lambda are the largest 2 - lambda, which is at least 0
        start = np.random.default_rng(0).random(n)
        largest, vectors = eigsh(normalized + eye_array(n), k, which="LA", v0=start, tol=1e-4)
        values, vectors = 2 - largest[::-1], vectors[:, ::-1]
    vectors = vectors * scale[:, None]
    vectors /= np.linalg.norm(vectors, axis=0)
    signs = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0))
    return values, vectors * signs


def two_way(affinities: csr_array | np.ndarray) -> tuple[np.ndarray, float]:
    """The best of 32 thresholds on the second eigenvector: labels (n,) 0 or 1, and their cut.

    The cut is Shi and Malik's, from 0 to 2. Label 1 is the side of the largest entry.
    """
    vector = eigenvectors(affinities, 2)[1][:, 1]
    thresholds = np.unique(np.linspace(vector.min(), vector.max(), 34)[1:-1])
    cuts = [normalized_cut(affinities, vector > threshold) for threshold in thresholds]
    best = int(np.argmin(cuts))
    return (vector > thresholds[best]).astype(np.int64), cuts[best]


def normalized_cut(affinities: csr_array | np.ndarray, labels: np.ndarray) -> float:
    """Sum over the labels (n,) of the fraction of a label's affinities that leave it: 0 or more."""
    degrees = np.asarray(affinities.sum(1)).ravel()
    cut = 0.0
    for label in np.unique(labels):
        inside = (labels == label).astype(np.float64)
        cut += 1 - float(inside @ (affinities @ inside)) / float(inside @ degrees)
    return cut


def k_way(affinities: csr_array | np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """k segments by the first k eigenvectors: (n,) from 0 to k - 1."""
    return cluster_vectors(eigenvectors(affinities, k)[1], seed)


def cluster_vectors(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """k segments (n,) by k-means of the rows of k eigenvectors (n, k), normalized to length 1."""
    from sklearn.cluster import KMeans

    k = vectors.shape[1]
    rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    with duplicates.without_kmeans_warning():  # fewer than k distinct rows, as of one color
        return KMeans(k, n_init=4, random_state=seed).fit_predict(rows)


def segment(features: ArrayLike, k: int, seed: int = 0, **options: float) -> np.ndarray:
    """Features (h, w, d) -> labels (h, w) from 0 to k - 1; options as for `affinities`."""
    h, w = np.shape(features)[:2]
    return k_way(affinities(features, **options), min(k, h * w), seed).reshape(h, w)
