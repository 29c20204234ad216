"""Nearest neighbors among the embeddings, as CSV and as a figure."""

from pathlib import Path

import numpy as np
import torch

from common import datasets, predictions
from deepcluster_torch import figures
from deepcluster_torch.cluster import kmeans
from deepcluster_torch.data.batches import INFERENCE_BATCH
from deepcluster_torch.data.loading import evenly_spaced

N_NEIGHBORS = 8


def find(queries: np.ndarray, known: np.ndarray, n: int = N_NEIGHBORS) -> np.ndarray:
    """Indices (q, min(n, m)) of the known (m, d) nearest to each of queries (q, d), in order."""
    n, points = min(n, len(known)), torch.from_numpy(known)
    parts = torch.from_numpy(queries).split(INFERENCE_BATCH)
    return torch.cat([kmeans.nearest(part, points, n)[1] for part in parts]).numpy()


def write_training(path: Path, dataset: datasets.Images, embeddings: np.ndarray) -> None:
    """A figure of some training images and their nearest neighbors; embeddings (n, d)."""
    queries = evenly_spaced(np.arange(len(embeddings)), N_NEIGHBORS)
    nearest = find(embeddings[queries], embeddings, N_NEIGHBORS + 1)
    # a duplicate of an image may come before the image itself
    rows = [[q, *row[row != q][:N_NEIGHBORS]] for q, row in zip(queries, nearest, strict=True)]
    figures.write_neighbors(path, dataset.images, np.array(rows), dataset.labels)


def write_new(
    out: Path,
    new: datasets.Images,
    new_embeddings: np.ndarray,
    known: datasets.Images,
    known_embeddings: np.ndarray,
) -> None:
    """OUT/neighbors.csv and a figure: the training images (known) nearest to each new image.

    Embeddings (q, d) and (n, d). Raises UserError if it cannot write.
    """
    nearest = find(new_embeddings, known_embeddings)
    shown = nearest[: figures.N_SHOWN]
    chosen = np.unique(shown)
    pixels = np.concatenate([new.images[: len(shown)], known.images[chosen]])
    columns = [np.arange(len(shown))[:, None], len(shown) + np.searchsorted(chosen, shown)]
    n = nearest.shape[1]
    with predictions.writing(out):
        predictions.write_csv(
            out / "neighbors.csv",
            {
                "path": [path for path in new.paths for _ in range(n)],
                "rank": np.tile(np.arange(1, n + 1), len(new.paths)),
                "neighbor": [known.paths[i] for i in nearest.flatten()],
            },
        )
        path = out / "images" / "neighbors.png"
        figures.write_neighbors(path, pixels, np.concatenate(columns, axis=1), None)
