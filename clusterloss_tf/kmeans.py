"""k-means of embeddings from several seeds."""

import numpy as np

from common import duplicates

N_SEEDS = 3
N_INIT = 3  # restarts per seed
MAX_SIZE = 10**7  # images times clusters, beyond which mini-batch k-means is used


def clusters(embeddings: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """embeddings (n, d) -> clusters (N_SEEDS, n) of each seed, centers (k, d) of the first seed."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    method = KMeans if len(embeddings) * k <= MAX_SIZE else MiniBatchKMeans
    with duplicates.without_kmeans_warning():
        fits = [method(k, n_init=N_INIT, random_state=i).fit(embeddings) for i in range(N_SEEDS)]
    return np.stack([fit.labels_ for fit in fits]).astype(np.int64), fits[0].cluster_centers_
