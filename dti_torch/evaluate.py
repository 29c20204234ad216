"""Scores the clusters of a run: python dti_torch/evaluate.py RUN"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import numpy as np

from common import cli, metrics, scoring
from dti_torch.config import Config

PROTOCOL = (
    "All images, in evaluation mode. Accuracy is one-to-one by the Hungarian method for any number "
    "of clusters; NMI uses the arithmetic mean; loss is the mean distance to the nearest prototype."
)


def main() -> None:
    cfg, run, _ = cli.open_run(Config, __file__, "Score the clusters of a run.")
    predictions = scoring.predictions(run)
    scores = evaluate(predictions)
    baseline = scoring.arrays(run.path / "baseline.npz")
    if "labels" in predictions and baseline:
        agreement = metrics.agreement(predictions["labels"], baseline["clusters"])
        scores["baseline"] = {"name": "k-means on pixels"} | agreement
        config = "_".join(filter(None, [cfg.dataset.name, cfg.dataset.split]))
        scores |= scoring.published(Path(__file__).with_name("results.csv"), f"{config}.yml")
    scoring.write(run, scores, PROTOCOL)


def evaluate(predictions: dict[str, np.ndarray]) -> dict:
    """Scores of clusters (n,) and distances (n, k), with labels (n,) also the agreement."""
    scores: dict = {}
    if "labels" in predictions:
        scores |= metrics.agreement(predictions["labels"], predictions["clusters"])
    sizes = np.bincount(predictions["clusters"], minlength=predictions["distances"].shape[1])
    scores["loss"] = float(predictions["distances"].min(axis=1).mean())
    scores["n"] = len(predictions["clusters"])
    scores["n_empty_clusters"] = int((sizes == 0).sum())
    return scores


if __name__ == "__main__":
    cli.main(main)
