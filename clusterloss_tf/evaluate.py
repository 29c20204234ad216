"""Scores the embeddings of a run: python clusterloss_tf/evaluate.py RUN [--gallery DIR]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import logging

import numpy as np

from clusterloss_tf.config import Config
from common import UserError, cli, metrics, scoring

log = logging.getLogger("clusterloss_tf.evaluate")

PROTOCOL = (
    "Test images only, in evaluation mode, searched among each other without themselves. Recall at "
    "K is the share of images with one of their class among the K nearest; n_unmatched images, "
    "alone in their class, are misses there and left out of MAP@R and R-precision. NMI "
    "(arithmetic), AMI and ARI are means over k-means from several seeds, with as many clusters as "
    "classes unless model.n_clusters says otherwise; _sd is their standard deviation."
)


def main() -> None:
    cfg, run, args = cli.open_run(
        Config,
        __file__,
        "Score the embeddings of a run.",
        gallery={"metavar": "DIR", "help": "features of extract.py to search in, too"},
    )
    predictions = scoring.predictions(run)
    scores = evaluate(predictions)
    if args.gallery:
        gallery = read_features(Path(args.gallery))
        queries = predictions["embeddings"], predictions["labels"]
        try:
            scores["against_gallery"] = metrics.retrieval_scores(*queries, gallery=gallery)
        except ValueError as error:
            raise UserError(f"{args.gallery}: {error}") from None
    try:
        scores["baseline"] = json.loads((run.path / "baseline.json").read_text())
    except (OSError, ValueError):
        log.warning("%s has no readable baseline.json: no baseline", run.path)
    scoring.write(run, scores, PROTOCOL)


def evaluate(predictions: dict[str, np.ndarray]) -> dict:
    """embeddings (n, d), kmeans (n_seeds, n), labels (n,), if known -> the scores that they allow.

    Raises UserError for embeddings with NaN.
    """
    scores: dict = {}
    if "labels" in predictions:
        labels, embeddings = predictions["labels"], predictions["embeddings"]
        try:
            scores |= metrics.retrieval_scores(embeddings, labels)
        except ValueError as error:
            raise UserError(f"the embeddings cannot be scored: {error}") from None
        for metric in (metrics.nmi, metrics.ami, metrics.adjusted_rand):
            values = [metric(labels, clusters) for clusters in predictions["kmeans"]]
            name = "ari" if metric is metrics.adjusted_rand else metric.__name__
            scores |= {name: float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1))}
    return scores | {"n": predictions["kmeans"].shape[1]}


def read_features(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """features (n, d) and labels (n,) that extract.py wrote; raises UserError."""
    try:
        return tuple(
            np.load(folder / name, allow_pickle=False) for name in ("features.npy", "labels.npy")
        )
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder} has no readable features: {error}: run extract.py") from None


if __name__ == "__main__":
    cli.main(main)
