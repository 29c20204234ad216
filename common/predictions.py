"""Writes predictions.npz and predictions.csv, the output of every pred.py."""

import contextlib
import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from common import UserError
from common.datasets import Images


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Creates a folder; an OSError inside becomes a UserError that names the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from None


def write(
    out: Path, dataset: Images, arrays: Mapping[str, np.ndarray], columns: Mapping[str, Sequence]
) -> None:
    """Writes OUT/predictions.npz with arrays and labels, OUT/predictions.csv with a row per image.

    columns (n,) come after the column path. Deletes OUT/images/clusters, the galleries of earlier
    predictions. Raises UserError if it cannot write.
    """
    labels: dict[str, np.ndarray] = {}
    if dataset.labels is not None:
        labels["labels"] = dataset.labels
        if dataset.classes is not None:
            labels["classes"] = np.array(dataset.classes)
    with writing(out):
        if (out / "predictions.npz").exists():  # else the galleries are not ours to delete
            shutil.rmtree(out / "images" / "clusters", ignore_errors=True)
        np.savez(out / "predictions.npz", **arrays, **labels)
        write_csv(out / "predictions.csv", {"path": dataset.paths} | dict(columns))


def write_csv(path: Path, columns: Mapping[str, Sequence]) -> None:
    """Writes columns of equal length; floats with six significant digits."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        for values in zip(*columns.values(), strict=True):
            rows.writerow([_format(value) for value in values])


def margins(distances: np.ndarray) -> np.ndarray:
    """Distance to the second nearest cluster minus that to the nearest: (n, k) -> (n,).

    NaN if k is 1.
    """
    if distances.shape[1] < 2:
        return np.full(len(distances), np.nan)
    first, second = np.partition(distances, 1, axis=1)[:, :2].T
    return second - first


def _format(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value
