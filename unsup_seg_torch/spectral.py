"""Normalised cuts of any features, untrained (Shi and Malik 2000; Ng, Jordan, Weiss 2001)."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import eigsh

DENSE = 1200  # points: up to here the whole matrix is taken apart, beyond it is sparse
LEAST = 1e-6  # tie between any two neighbours, so that the graph stays in one piece


def affinities(
    features: ArrayLike, radius: float = 8, sigma: float = 0.1, sigma_position: float = 6
) -> csr_array:
    """Ties between the points of a grid: features (h, w, d) -> (h w, h w), symmetric.

    exp(-|f_i - f_j|^2 / sigma^2 - |x_i - x_j|^2 / sigma_position^2) for points nearer than radius;
    positions in points. The features may be colours, a network's probabilities, or what a vision
    transformer says of its patches.
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
            gaps = ((features[here] - features[there]) ** 2).sum(-1)
            ties = np.exp(-gaps / sigma**2 - squared / sigma_position**2)
            rows += [index[here].ravel(), index[there].ravel()]
            columns += [index[there].ravel(), index[here].ravel()]
            values += [np.maximum(ties, LEAST).ravel()] * 2
    where = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.concatenate(values), where), shape=(h * w, h * w))


def eigenvectors(ties: csr_array | np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest solutions of (D - W) x = lambda D x: values (k,), vectors (n, k).

    ties (n, n), symmetric and not negative. The first vector is the same everywhere; each has the
    sign that makes its largest entry positive. Raises ValueError for a k that there is not.
    """
    n = ties.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"{k} eigenvectors of {n} points: expected 1 to {n}")
    scale = 1 / np.sqrt(np.asarray(ties.sum(1)).ravel())
    if n <= max(DENSE, 3 * k):
        whole = ties.toarray() if not isinstance(ties, np.ndarray) else ties
        normalised = scale[:, None] * whole * scale
        values, vectors = eigh(np.eye(n) - normalised, subset_by_index=(0, k - 1))
    else:
        diagonal = diags_array(scale)
        normalised = csr_array(diagonal @ csr_array(ties) @ diagonal)
        # the largest of 2 - lambda, which is at least 0, are the smallest of lambda
        start = np.random.default_rng(0).random(n)
        found, vectors = eigsh(normalised + eye_array(n), k, which="LA", v0=start, tol=1e-4)
        values, vectors = 2 - found[::-1], vectors[:, ::-1]
    vectors = vectors * scale[:, None]
    vectors /= np.linalg.norm(vectors, axis=0)
    signs = np.sign(np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0))
    return values, vectors * signs


def two_way(ties: csr_array | np.ndarray) -> tuple[np.ndarray, float]:
    """The best of 32 thresholds on the second eigenvector: labels (n,) of 0 and 1, and their cut.

    The cut is Shi and Malik's, from 0 to 2. Label 1 is the side of the vector's largest entry.
    """
    vector = eigenvectors(ties, 2)[1][:, 1]
    thresholds = np.unique(np.linspace(vector.min(), vector.max(), 34)[1:-1])
    cuts = [normalised_cut(ties, vector > threshold) for threshold in thresholds]
    best = int(np.argmin(cuts))
    return (vector > thresholds[best]).astype(np.int64), cuts[best]


def normalised_cut(ties: csr_array | np.ndarray, labels: np.ndarray) -> float:
    """The sum over labels of the ties that leave one, as a share of all that it has: (n,) -> >= 0.

    A label that no point has, or that all have, counts nothing but for what it cuts.
    """
    degrees = np.asarray(ties.sum(1)).ravel()
    cut = 0.0
    for label in np.unique(labels):
        inside = (labels == label).astype(np.float64)
        cut += 1 - float(inside @ (ties @ inside)) / float(inside @ degrees)
    return cut


def k_way(ties: csr_array | np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """k segments by the first k eigenvectors: (n,) from 0 to k - 1."""
    return of_vectors(eigenvectors(ties, k)[1], seed)


def of_vectors(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """As many segments as vectors (n, k), by k-means of each point's, scaled to length 1: (n,)."""
    from sklearn.cluster import KMeans

    k = vectors.shape[1]
    rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return KMeans(k, n_init=4, random_state=seed).fit_predict(rows)


def segment(features: ArrayLike, k: int, seed: int = 0, **options: float) -> np.ndarray:
    """Features (h, w, d) -> labels (h, w) from 0 to k - 1; options as for `affinities`."""
    h, w = np.shape(features)[:2]
    return k_way(affinities(features, **options), min(k, h * w), seed).reshape(h, w)
