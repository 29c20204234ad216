"""Writes embeddings as arrays: python -m clusterloss_tf.extract RUN [--part train] [--out DIR]

features.npy (n, dim) float32, labels.npy (n,) and index.csv, in the order of the dataset.
"""

import logging
from pathlib import Path

import numpy as np

from clusterloss_tf import config, pred
from common import cli, predictions
from common.run import Run

log = logging.getLogger("clusterloss_tf.extract")


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Write the embeddings of the test or training images of a run.",
        part={
            "choices": ["test", "train"],
            "default": "test",
            "help": "images to embed (default: test)",
        },
        out={"metavar": "DIR", "help": "output folder (default: RUN/features_PART)"},
    )
    write(cfg, run, args.part, args.out)


def write(cfg: config.Config, run: Run, part: str = "test", out: str | None = None) -> None:
    """Writes the embeddings of the "test" or "train" images to `out`, or to RUN/features_PART."""
    net = pred.load(cfg, run)
    dataset = pred.load_part(cfg, run, part)
    folder = Path(out or run.path / f"features_{part}")
    features = pred.embed(net, dataset.images)
    names = [dataset.classes[label] for label in dataset.labels]
    with predictions.writing(folder):
        np.save(folder / "features.npy", features)
        np.save(folder / "labels.npy", dataset.labels)
        columns = {"path": dataset.paths, "label": dataset.labels, "class": names}
        predictions.write_csv(folder / "index.csv", columns)
    log.info("%d embeddings: %s", len(features), folder)


if __name__ == "__main__":
    cli.main(main)
