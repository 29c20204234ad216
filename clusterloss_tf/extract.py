"""Writes embeddings as arrays: python -m clusterloss_tf.extract RUN [--part train] [--out DIR]

features.npy (n, dim) float32, labels.npy (n,) and index.csv, in the order of the data set.
"""

import csv
import logging
from pathlib import Path

import numpy as np

from clusterloss_tf import config, pred
from common import UserError, cli

log = logging.getLogger("clusterloss_tf.extract")


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Write the embeddings of the test or the training images of a run.",
        part={"choices": ["test", "train"], "default": "test", "help": "default: test"},
        out={"metavar": "DIR", "help": "where to write; default RUN/features_PART"},
    )
    net = pred.load(cfg, run)
    found = pred.load_part(cfg, run, args.part)
    out = Path(args.out or run.path / f"features_{args.part}")
    features = pred.embed(net, found.images)
    try:
        out.mkdir(parents=True, exist_ok=True)
        np.save(out / "features.npy", features)
        np.save(out / "labels.npy", found.labels)
        with open(out / "index.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "label", "class"])
            for path, label in zip(found.paths, found.labels, strict=True):
                rows.writerow([path, label, found.classes[label]])
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    log.info("%d embeddings: %s", len(features), out)


if __name__ == "__main__":
    cli.main(main)
