"""Which images lie nearest to an image: by index, as CSV and as a picture."""

import csv
from pathlib import Path

import numpy as np
import torch

from common import UserError, datasets
from deepcluster_torch import cluster, pictures, views

N = 8  # neighbours of an image


def find(queries: np.ndarray, known: np.ndarray, n: int = N) -> np.ndarray:
    """The n of known (m, d) nearest to each of queries (q, d), nearest first -> (q, n or m)"""
    n, sought = min(n, len(known)), torch.from_numpy(known)
    parts = torch.from_numpy(queries).split(views.BATCH)
    return torch.cat([cluster.nearest(part, sought, n)[1] for part in parts]).numpy()


def write_of_training(path: Path, found: datasets.Images, embeddings: np.ndarray) -> None:
    """A picture of some training images and the others nearest to each."""
    queries = views.spread_out(np.arange(len(embeddings)), N)
    nearest = find(embeddings[queries], embeddings, N + 1)
    # of equal images another one may come first
    rows = [[q, *row[row != q][:N]] for q, row in zip(queries, nearest, strict=True)]
    pictures.write_neighbours(path, found.images, np.array(rows), found.labels)


def write_of_new(
    out: Path,
    shown: datasets.Images,
    embeddings: np.ndarray,
    known: datasets.Images,
    of_known: np.ndarray,
) -> None:
    """OUT/neighbours.csv, images of the training nearest to each new one, and a picture of some.

    embeddings (q, d) are those of the new images, of_known (n, d) of the training's. Raises
    UserError if it cannot write.
    """
    nearest = find(embeddings, of_known)
    few = nearest[: pictures.N_SHOWN]
    chosen = np.unique(few)
    pixels = np.concatenate([shown.images[: len(few)], known.images[chosen]])
    columns = [np.arange(len(few))[:, None], len(few) + np.searchsorted(chosen, few)]
    try:
        with open(out / "neighbours.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "rank", "neighbour"])
            for path, row in zip(shown.paths, nearest, strict=True):
                rows.writerows([path, rank, known.paths[i]] for rank, i in enumerate(row, 1))
        target = out / "images" / "neighbours.png"
        pictures.write_neighbours(target, pixels, np.concatenate(columns, axis=1), None)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
