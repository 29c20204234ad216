"""Scores the clusters of a run: python deepcluster_torch/evaluate.py RUN"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import csv
import json
import logging

import numpy as np

from common import cli, metrics, scoring
from deepcluster_torch.config import Config

log = logging.getLogger("deepcluster_torch.evaluate")

PROTOCOL = (
    "All training images, in evaluation mode, without augmentation. Accuracy: one-to-one matching "
    "of clusters and classes (Hungarian algorithm) for any number of clusters; NMI: arithmetic "
    "mean. Balance: perplexity of the cluster sizes over the number of clusters, 1 for equal "
    "sizes. NMI previous: between the last two assignments of the training."
)
MIN_BALANCE = 0.1  # balance below which the clusters have collapsed


def main() -> None:
    cfg, run, _ = cli.open_run(Config, __file__, "Score the clusters of a run.")
    predictions = scoring.predictions(run)
    scores = evaluate(predictions)
    is_expected = run.meta.get("has_few_distinct_images", False)  # train.py has warned of them
    if scores["balance"] < MIN_BALANCE and not is_expected:
        log.warning("the clusters have collapsed: balance %.3f", scores["balance"])
    held_out = scoring.arrays(run.path / "held_out.npz") or {}
    if "labels" in held_out:
        scores["held_out"] = metrics.agreement(held_out["labels"], held_out["clusters"])
    probes = read_json(run.path / "probes.json")
    scores |= probes.get("scores", {})
    if "nmi_previous" in (last := last_epoch(run.path / "epochs.csv")):
        scores["nmi_previous"] = last["nmi_previous"]
    baseline = scoring.arrays(run.path / "baseline.npz")
    if "labels" in predictions and baseline:
        agreement = metrics.agreement(predictions["labels"], baseline["clusters"])
        scores["baseline"] = {"name": "k-means on pixels"} | agreement
        results = Path(__file__).with_name("results.csv")
        scores |= scoring.published(results, f"{cfg.dataset.name}.yml")
    protocol = " ".join(filter(None, [PROTOCOL, probes.get("protocol")]))
    scoring.write(run, scores, protocol)


def evaluate(predictions: dict[str, np.ndarray]) -> dict:
    """Scores of the arrays clusters (n,), distances (n,), n_clusters, labels (n,) and fine (n,).

    The last two may be missing; fine: the clusters before merging.
    """
    clusters, scores = predictions["clusters"], {}
    if "labels" in predictions:
        scores |= metrics.agreement(predictions["labels"], clusters)
        if "fine" in predictions:
            scores["before_merging"] = metrics.agreement(predictions["labels"], predictions["fine"])
    sizes = np.bincount(clusters, minlength=int(predictions["n_clusters"]))
    scores |= {
        "distance": float(predictions["distances"].mean()),
        "n": len(clusters),
        "n_clusters": len(sizes),
        "n_empty_clusters": int((sizes == 0).sum()),
        "balance": balance(sizes),
    }
    return scores


def balance(sizes: np.ndarray) -> float:
    """Perplexity of cluster sizes (k,) over k, in (0, 1]: 1 / k if one cluster has all images."""
    p = sizes[sizes > 0] / sizes.sum()
    return float(np.exp(-(p * np.log(p)).sum()) / len(sizes))


def read_json(path: Path) -> dict:
    """A JSON dictionary; empty if it is not readable."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def last_epoch(path: Path) -> dict[str, float]:
    """The last row of epochs.csv without its empty cells; empty if it is not readable."""
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: float(value) for name, value in rows[-1].items() if value}
    except (OSError, ValueError, IndexError):
        return {}


if __name__ == "__main__":
    cli.main(main)
