"""Clusters of embeddings, by k-means from several seeds."""

import warnings

import numpy as np

N_SEEDS = 3
N_STARTS = 3  # of a seed, the best of which counts
MAX_SIZE = 10**7  # images times clusters beyond which the means are taken of small batches


def clusters(embeddings: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """embeddings (n, d) -> the clusters (N_SEEDS, n) of each seed, centres (k, d) of the first."""
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    method = KMeans if len(embeddings) * k <= MAX_SIZE else MiniBatchKMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than k
        fits = [method(k, n_init=N_STARTS, random_state=i).fit(embeddings) for i in range(N_SEEDS)]
    return np.stack([fit.labels_ for fit in fits]).astype(np.int64), fits[0].cluster_centers_
