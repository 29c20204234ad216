"""Embeds and clusters images: python clusterloss_tf/pred.py RUN [--input FOLDER] [--out DIR]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import dataclasses
import logging

import numpy as np

from clusterloss_tf import config, data, figures, kmeans, model, train
from common import cli, datasets, duplicates, images, predictions
from common.run import Run
from common.tf import checkpoint, keras, tf

log = logging.getLogger("clusterloss_tf.pred")


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Embed and cluster the test images of a run, or new images.",
        input=cli.NEW_IMAGES["input"] | {"help": "new images (default: the run's test images)"},
        out=cli.NEW_IMAGES["out"],
    )
    net = load(cfg, run)
    if args.input is None:
        dataset = load_part(cfg, run, "test")
    else:
        dataset = load_new(cfg, net, Path(args.input))
    out = cli.output_folder(run, args)
    embeddings = embed(net, dataset.images)
    n_classes = run.meta["n_classes"] if dataset.labels is None else len(np.unique(dataset.labels))
    k = min(cfg.model.n_clusters or n_classes, len(embeddings))
    if args.input is not None and (message := duplicates.few_distinct(dataset.images, k)):
        log.warning("%s", message)
    write(out, dataset, embeddings, *kmeans.clusters(embeddings, k))
    log.info("%d images: %s", len(embeddings), out / "predictions.csv")


def load(cfg: config.Config, run: Run) -> keras.Model:
    """The network of the run's latest checkpoint; raises UserError if there is none."""
    path = run.require_checkpoint().path
    net = model.build(cfg.model, tuple(run.meta["image_shape"]), cfg.training.seed)
    checkpoint.load(path / "model.weights.h5", model.by_name(net.variables))
    return net


def load_part(cfg: config.Config, run: Run, part: str) -> datasets.Images:
    """The "train" or "test" images of a run; raises UserError if they changed since training."""
    parts = dict(zip(("train", "test"), data.load(cfg.dataset), strict=True))
    run.check_dataset(parts["train"].checksum, cli.PASS_AS_INPUT)
    return parts[part]


def load_new(cfg: config.Config, net: keras.Model, path: Path) -> datasets.Images:
    """New images at the network's size and channels, center-cropped to a square."""
    height, width, n_channels = net.input_shape[1:]
    size = height if height == width else (height, width)
    dataset = datasets.load("folder", path=path, size=size, max_bad=cfg.dataset.max_bad)
    pixels = images.to_channels(dataset.images, n_channels)
    return dataclasses.replace(dataset, images=pixels)


def embed(net: keras.Model, images: np.ndarray) -> np.ndarray:
    """Images uint8 (n, h, w, c) -> embeddings (n, dim) float32; raises UserError for NaN."""

    @tf.function(reduce_retracing=True)
    def network(batch: tf.Tensor) -> tf.Tensor:
        return net(data.to_float(batch), training=False)

    return train.embed(network, images)


def write(
    out: Path,
    dataset: datasets.Images,
    embeddings: np.ndarray,
    clusters: np.ndarray,
    centers: np.ndarray,
) -> None:
    """Predictions and figures; clusters (n_seeds, n), centers (k, d) of the first seed."""
    distances = np.linalg.norm(embeddings[:, None] - centers, axis=2)  # (n, k)
    own = distances[np.arange(len(distances)), clusters[0]]
    arrays = {"embeddings": embeddings, "clusters": clusters[0], "kmeans": clusters}
    margins = predictions.margins(distances)
    columns = {"cluster": clusters[0], "distance": own, "margin": margins}
    predictions.write(out, dataset, arrays, columns)
    with predictions.writing(out / "images"):
        figures.write(out / "images", dataset, embeddings, clusters[0], own)


if __name__ == "__main__":
    cli.main(main)
