"""Scores the embeddings of a run: python clusterloss_tf/evaluate.py RUN [--gallery DIR]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import json
import logging

import numpy as np

from clusterloss_tf.config import Config
from common import UserError, cli, metrics, scoring

log = logging.getLogger("clusterloss_tf.evaluate")

PROTOCOL = (
    "Retrieval among the test images, without the query itself. Recall@K is the fraction of "
    "queries with an image of their class among the K nearest. n_unmatched images are alone in "
    "their class: misses for Recall@K, left out of MAP@R and R-precision. NMI (arithmetic), AMI, "
    "and ARI are means over k-means with several seeds, with as many clusters as classes unless "
    "model.n_clusters is set; _sd is their standard deviation."
)


def main() -> None:
    cfg, run, args = cli.open_run(
        Config,
        __file__,
        "Score the embeddings of a run.",
        gallery={
            "metavar": "DIR",
            "help": "output folder of extract.py to search in as well (default: none)",
        },
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
    """Scores of embeddings (n, d) and kmeans (n_seeds, n) against labels (n,), if there are any.

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
    """features (n, d) and labels (n,) written by extract.py; raises UserError."""
    try:
        names = ("features.npy", "labels.npy")
        return tuple(np.load(folder / name, allow_pickle=False) for name in names)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder} has no readable features: {error}: run extract.py") from None


if __name__ == "__main__":
    cli.main(main)
