"""Predictions in, scores.json out: what is the same in every paper's evaluate.py."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from common import UserError
from common.run import Run

log = logging.getLogger(__name__)


def predictions(run: Run) -> dict[str, np.ndarray]:
    """The arrays of predictions.npz; raises UserError without a readable one."""
    found = arrays(run.path / "predictions.npz")
    if found is None:
        raise UserError(f"{run.path} has no readable predictions.npz: run pred.py on it first")
    return found


def arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file of NumPy's; None where there is none, or none that can be read."""
    try:
        with open(path, "rb") as file:  # np.load itself leaves a damaged archive open
            return dict(np.load(file, allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError, BadZipFile):
        return None


def rows(run: Run, numbers: Sequence[str]) -> list[dict[str, str]]:
    """The rows of predictions.csv; raises UserError unless each has these whole numbers."""
    try:
        with open(run.path / "predictions.csv", newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        if not [int(row[name]) for row in found for name in numbers]:
            raise ValueError
        return found
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise UserError(
            f"{run.path} has no readable predictions.csv: run pred.py on it first"
        ) from None


def published(results: Path, config: str) -> dict[str, dict]:
    """What results.csv says has been published for a config, if anything has."""
    with open(results, newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["seed"] == "published"]
    found = [row for row in found if row["config"] == config]
    if not found:
        return {}
    values = {row["metric"]: float(row["value"]) for row in found}
    return {"published": {"name": f"published ({found[0]['machine']})"} | values}


def write(run: Run, scores: dict, protocol: str) -> None:
    """Writes scores.json, with one sentence or more on how they were found, and logs them."""
    run.write_json("scores.json", scores | {"protocol": protocol})
    log.info(", ".join(f"{name} {v:.4g}" for name, v in scores.items() if not isinstance(v, dict)))
