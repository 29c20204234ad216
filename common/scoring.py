"""What the papers' evaluate.py scripts share: reading predictions, writing scores.json."""

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
    """The arrays of predictions.npz. Raises UserError if it is missing or damaged."""
    loaded = arrays(run.path / "predictions.npz")
    if loaded is None:
        raise UserError(f"{run.path} has no readable predictions.npz: run pred.py on it first")
    return loaded


def arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file; None if it is missing or damaged."""
    try:
        with open(path, "rb") as file:  # np.load itself does not close a damaged archive
            return dict(np.load(file, allow_pickle=False))
    except (OSError, ValueError, TypeError, EOFError, BadZipFile):
        return None


def rows(run: Run, integers: Sequence[str]) -> list[dict[str, str]]:
    """The rows of predictions.csv; raises UserError unless these columns hold integers."""
    try:
        with open(run.path / "predictions.csv", newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        if not [int(row[name]) for row in table for name in integers]:
            raise ValueError
        return table
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise UserError(
            f"{run.path} has no readable predictions.csv: run pred.py on it first"
        ) from None


def published(results: Path, config: str) -> dict[str, dict]:
    """The published scores of a config in results.csv, as {"published": ...}; empty without any."""
    with open(results, newline="", encoding="utf-8") as file:
        published_rows = [
            row
            for row in csv.DictReader(file)
            if row["seed"] == "published" and row["config"] == config
        ]
    if not published_rows:
        return {}
    scores = {row["metric"]: float(row["value"]) for row in published_rows}
    return {"published": {"name": f"published ({published_rows[0]['machine']})"} | scores}


def write(run: Run, scores: dict, protocol: str) -> None:
    """Writes scores.json and logs the scores; protocol: how they were computed, in sentences."""
    run.write_json("scores.json", scores | {"protocol": protocol})
    log.info(", ".join(f"{name} {v:.4g}" for name, v in scores.items() if not isinstance(v, dict)))
