"""Files with the clusters of images: predictions, galleries, one folder per cluster."""

import os
import shutil
from pathlib import Path

import numpy as np

from common import UserError, datasets, images, predictions
from deepcluster_torch import figures
from deepcluster_torch.cluster.final import Assignments


def write(out: Path, dataset: datasets.Images, assignments: Assignments, n_clusters: int) -> None:
    """Writes predictions.npz, predictions.csv and galleries; raises UserError if it cannot write.

    Distances are squared, between vectors of length 1; the margin is how much farther the second
    nearest cluster is; top_3 are the nearest clusters, nearest first.
    """
    clusters, distances = assignments.clusters, assignments.distances[:, 0]
    arrays = {
        "clusters": clusters,
        "distances": distances,
        "nearest": assignments.nearest,
        "embeddings": assignments.embeddings,
        "n_clusters": np.array(n_clusters),
    }
    if assignments.fine.max() >= n_clusters:
        arrays["fine"] = assignments.fine  # before merging
    columns = {
        "cluster": clusters,
        "distance": distances,
        "margin": predictions.margins(assignments.distances),
        "top_3": [" ".join(map(str, row)) for row in assignments.nearest],
    }
    predictions.write(out, dataset, arrays, columns)
    with predictions.writing(out / "images"):
        folder = out / "images" / "clusters"
        figures.write_clusters(folder, dataset.images, clusters, distances)
        images.write_captions(out / "images", figures.CAPTIONS)


def write_held_out(out: Path, dataset: datasets.Images, assignments: Assignments) -> None:
    """Writes held_out.npz, for evaluate.py."""
    arrays = {"clusters": assignments.clusters, "embeddings": assignments.embeddings}
    if dataset.labels is not None:
        arrays["labels"] = dataset.labels
    np.savez(out / "held_out.npz", **arrays)


def write_folders(
    folder: Path, dataset: datasets.Images, clusters: np.ndarray, method: str
) -> None:
    """Writes one folder per cluster (n,), with a "link" to each image or a "copy" of it.

    Images without a file of their own are written as PNG; duplicate names get a number. Raises
    UserError if the folder exists or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: move it away, or choose another --out")
    with predictions.writing(folder):
        for i, (path, k) in enumerate(zip(dataset.paths, clusters, strict=True)):
            target = _unused(folder / f"{k:02d}" / Path(path).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.isfile(path):
                images.save_png(target.with_suffix(".png"), dataset.images[i])
            elif method == "link":
                target.symlink_to(os.path.abspath(path))
            else:
                shutil.copy2(path, target)


def _unused(path: Path) -> Path:
    """The path, with the first number that makes it unused."""
    number, unused = 2, path
    while os.path.lexists(unused):
        unused, number = path.with_stem(f"{path.stem}_{number}"), number + 1
    return unused
