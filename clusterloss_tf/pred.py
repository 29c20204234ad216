"""Embeds and clusters images: python clusterloss_tf/pred.py RUN [--input FOLDER] [--out DIR]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import dataclasses
import logging
import os
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: it greets in six lines
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in train.py

from common.tf import quiet

with quiet.stderr():
    import keras
    import tensorflow as tf
import numpy as np

from clusterloss_tf import config, data, kmeans, model, pictures, train
from common import UserError, cli, datasets
from common.run import Run

log = logging.getLogger("clusterloss_tf.pred")

COLUMNS = ["path", "cluster", "distance", "margin"]


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Embed and cluster the test images of a run, or new images.",
        input={"metavar": "FILE_OR_FOLDER", "help": "new images; default: the test images"},
        out={
            "metavar": "DIR",
            "help": "where to write; default RUN, with --input RUN/predictions_NAME",
        },
    )
    net = load(cfg, run)
    if args.input is None:
        found, out = load_part(cfg, run, "test"), Path(args.out or run.path)
    else:
        source = Path(args.input)
        found = load_new(cfg, net, source)
        out = Path(args.out or run.path / f"predictions_{source.resolve().stem}")
    embeddings = embed(net, found.images)
    n_classes = run.meta["n_classes"] if found.labels is None else len(np.unique(found.labels))
    k = min(cfg.model.n_clusters or n_classes, len(embeddings))
    write(out, found, embeddings, *kmeans.clusters(embeddings, k))
    log.info("%d images: %s", len(embeddings), out / "predictions.csv")


def load(cfg: config.Config, run: Run) -> keras.Model:
    """The network of the run's latest checkpoint; raises UserError without one."""
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        raise UserError(
            f"{run.path} has no checkpoint yet: train.py --resume {run.path} goes on with it"
        )
    net = model.build(cfg.model, tuple(run.meta["image_shape"]), cfg.training.seed)
    train.load(checkpoint.path / "model.weights.h5", model.by_name(net.variables))
    return net


def load_part(cfg: config.Config, run: Run, part: str) -> datasets.Images:
    """The "train" or the "test" images of a run; raises UserError if they have changed since."""
    parts = dict(zip(("train", "test"), data.load(cfg.dataset), strict=True))
    if parts["train"].checksum != run.meta.get("dataset_checksum"):
        raise UserError("the data set is not what it was in training: give it as --input")
    return parts[part]


def load_new(cfg: config.Config, net: keras.Model, source: Path) -> datasets.Images:
    """New images of the network's size and channels; a square is cut from their centre."""
    height, width, n_channels = net.input_shape[1:]
    size = height if height == width else (height, width)
    found = datasets.load("folder", path=source, size=size, max_bad=cfg.dataset.max_bad)
    return dataclasses.replace(found, images=data.fit_to(found.images, n_channels))


def embed(net: keras.Model, images: np.ndarray) -> np.ndarray:
    """Images uint8 (n, h, w, c) -> embeddings (n, dim) float32; raises UserError if one is NaN."""

    @tf.function(reduce_retracing=True)
    def network(batch: tf.Tensor) -> tf.Tensor:
        return net(data.to_float(batch), training=False)

    return train.embed(network, images)


def write(
    out: Path,
    found: datasets.Images,
    embeddings: np.ndarray,
    clusters: np.ndarray,
    centres: np.ndarray,
) -> None:
    """predictions.npz and .csv, pictures; clusters (n_seeds, n), centres (k, d) of the first."""
    distances = np.linalg.norm(embeddings[:, None] - centres, axis=2)  # (n, k)
    ordered = np.sort(distances, axis=1)
    own = distances[np.arange(len(distances)), clusters[0]]
    margins = (
        ordered[:, 1] - ordered[:, 0] if len(centres) > 1 else np.full(len(embeddings), np.nan)
    )
    arrays = {"embeddings": embeddings, "clusters": clusters[0], "kmeans": clusters}
    if found.labels is not None:
        arrays |= {"labels": found.labels, "classes": np.array(found.classes)}
    try:
        if (out / "predictions.npz").exists():  # else it is no work of ours
            shutil.rmtree(out / "images" / "clusters", ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(out / "predictions.npz", **arrays)
        with open(out / "predictions.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for path, k, distance, margin in zip(
                found.paths, clusters[0], own, margins, strict=True
            ):
                rows.writerow([path, k, f"{distance:.6g}", f"{margin:.6g}"])
        pictures.write(out / "images", found, embeddings, clusters[0], own)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None


if __name__ == "__main__":
    cli.main(main)
