"""What a run says of its images: predictions.npz and .csv, galleries, a folder a cluster."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np

from common import UserError, datasets, images
from deepcluster_torch import pictures
from deepcluster_torch.readout import Assigned

COLUMNS = ["path", "cluster", "distance", "margin", "top_3"]


def write(out: Path, found: datasets.Images, assigned: Assigned, n_clusters: int) -> None:
    """predictions.npz, predictions.csv and the galleries; raises UserError if it cannot write.

    A distance is squared, between vectors of length 1; the margin is how much further the second
    cluster is; top_3 are the nearest clusters, nearest first.
    """
    arrays = {
        "clusters": assigned.clusters,
        "distances": assigned.distances[:, 0],
        "nearest": assigned.nearest,
        "embeddings": assigned.embeddings,
        "n_clusters": np.array(n_clusters),
    }
    if assigned.fine.max() >= n_clusters:
        arrays["fine"] = assigned.fine  # before they were merged
    if found.labels is not None:
        arrays |= {"labels": found.labels, "classes": np.array(found.classes)}
    try:
        if (out / "predictions.npz").exists():  # else it is no work of ours
            shutil.rmtree(out / "images" / "clusters", ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / "predictions.npz", **arrays)
        with open(out / "predictions.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            columns = (
                found.paths, assigned.nearest, assigned.distances[:, 0], assigned.margins
            )  # fmt: skip
            for path, nearest, distance, margin in zip(*columns, strict=True):
                top = " ".join(map(str, nearest))
                rows.writerow([path, nearest[0], f"{distance:.6g}", f"{margin:.6g}", top])
        folder = out / "images"
        pictures.write_clusters(
            folder / "clusters", found.images, assigned.clusters, assigned.distances[:, 0]
        )
        images.write_captions(folder, pictures.CAPTIONS)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None


def write_held_out(out: Path, found: datasets.Images, assigned: Assigned) -> None:
    """held_out.npz: the same of images that the training has not seen."""
    arrays = {"clusters": assigned.clusters, "embeddings": assigned.embeddings}
    if found.labels is not None:
        arrays["labels"] = found.labels
    np.savez(out / "held_out.npz", **arrays)


def write_folders(folder: Path, found: datasets.Images, clusters: np.ndarray, how: str) -> None:
    """One folder a cluster, with a link to each of its images, or a copy. Raises UserError.

    Images that are no files of their own are written as PNG. A name that is taken gets a number.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: move it away, or give another --out")
    try:
        for i, (path, k) in enumerate(zip(found.paths, clusters, strict=True)):
            target = _free(folder / f"{k:02d}" / Path(path).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not os.path.isfile(path):
                images.save_png(target.with_suffix(".png"), found.images[i])
            elif how == "link":
                target.symlink_to(os.path.abspath(path))
            else:
                shutil.copy2(path, target)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from None


def _free(path: Path) -> Path:
    """The path, or with the first number that makes it one that is not taken."""
    number, free = 2, path
    while os.path.lexists(free):
        free, number = path.with_stem(f"{path.stem}_{number}"), number + 1
    return free
