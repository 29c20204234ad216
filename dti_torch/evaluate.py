"""Scores the clusters of a run: python dti_torch/evaluate.py RUN"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import logging
from zipfile import BadZipFile

import numpy as np

from common import UserError, cli, metrics
from dti_torch.config import Config

log = logging.getLogger("dti_torch.evaluate")

PROTOCOL = (
    "All images, in evaluation mode. Accuracy is one-to-one by the Hungarian method, whatever the "
    "number of clusters; NMI has the arithmetic mean; loss is the mean distance to the nearest "
    "prototype."
)


def main() -> None:
    cfg, run, _ = cli.open_run(Config, __file__, "Score the clusters of a run.")
    try:
        with np.load(run.path / "predictions.npz", allow_pickle=False) as file:
            predictions = dict(file)
    except (OSError, ValueError, BadZipFile):
        raise UserError(
            f"{run.path} has no readable predictions.npz: run pred.py on it first"
        ) from None
    scores = evaluate(predictions)
    baseline = run.path / "baseline.npz"
    if "labels" in predictions and baseline.exists():
        clusters = np.load(baseline, allow_pickle=False)["clusters"]
        scores["baseline"] = {"name": "k-means on pixels"} | agreement(
            predictions["labels"], clusters
        )
        scores |= published(cfg)
    run.write_json("scores.json", scores | {"protocol": PROTOCOL})
    log.info(
        ", ".join(
            f"{name} {value:.4g}" for name, value in scores.items() if not isinstance(value, dict)
        )
    )


def evaluate(predictions: dict[str, np.ndarray]) -> dict:
    """clusters (n,), distances (n, k) and perhaps labels (n,) -> the scores that they allow"""
    scores: dict = {}
    if "labels" in predictions:
        scores |= agreement(predictions["labels"], predictions["clusters"])
    sizes = np.bincount(predictions["clusters"], minlength=predictions["distances"].shape[1])
    scores["loss"] = float(predictions["distances"].min(axis=1).mean())
    scores["n"] = len(predictions["clusters"])
    scores["n_empty_clusters"] = int((sizes == 0).sum())
    return scores


def agreement(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """Accuracy, NMI, adjusted Rand index and purity of clusters (n,) given labels (n,)."""
    return {
        "acc": metrics.clustering_accuracy(labels, clusters),
        "nmi": metrics.nmi(labels, clusters),
        "ari": metrics.adjusted_rand(labels, clusters),
        "purity": metrics.purity(labels, clusters),
    }


def published(cfg: Config) -> dict[str, dict]:
    """What has been published for this data set, from results.csv, if anything has."""
    name = "_".join(filter(None, [cfg.dataset.name, cfg.dataset.split]))
    with open(Path(__file__).with_name("results.csv"), newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "published"]
    rows = [row for row in rows if row["config"] == f"{name}.yml"]
    if not rows:
        return {}
    values = {row["metric"]: float(row["value"]) for row in rows}
    return {"published": {"name": f"published ({rows[0]['machine']})"} | values}


if __name__ == "__main__":
    cli.main(main)
