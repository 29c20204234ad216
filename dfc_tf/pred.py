"""Writes the segments of images: python dfc_tf/pred.py RUN [--input FILE_OR_FOLDER] [--out DIR]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import dataclasses
import logging
from collections.abc import Callable
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from common import UserError, cli, duplicates, predictions
from common.bsds import components
from common.run import Run
from dfc_tf import config, data, figures, regions

log = logging.getLogger("dfc_tf.pred")

Segmenter = Callable[[data.Sample], np.ndarray]  # -> labels (h, w)

COLUMNS = ["path", "name", "height", "width", "n_labels", "n_segments", "largest_fraction"]


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Write the segments of the images of a run, or of new images.",
        **cli.NEW_IMAGES,
    )
    if args.input is None:
        dataset = data.ImageDataset(cfg.dataset)
        run.check_dataset(dataset.checksum, cli.PASS_AS_INPUT)
        segment = saved_labels(run)
    else:
        dataset = data.ImageDataset(
            dataclasses.replace(cfg.dataset, path=args.input, split="", scribbles=None)
        )
        if message := duplicates.one_color(dataset.are_one_color):
            log.warning("%s", message)
        segment = predict_labels(cfg, run)
    out = cli.output_folder(run, args)
    with predictions.writing(out):
        write(cfg, run, dataset, segment, out)
    log.info("images: %d, %s", len(dataset), out / "predictions.csv")


def saved_labels(run: Run) -> Segmenter:
    """Reads the labels at the end of the training."""

    def segment(sample: data.Sample) -> np.ndarray:
        path = run.path / "labels" / f"{sample.name}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                labels = file["labels"]
        except (OSError, ValueError, KeyError, BadZipFile):
            raise UserError(
                f"{run.path} has no readable labels of {sample.name}: finish the training with "
                f"train.py --resume {run.path}"
            ) from None
        if labels.shape != sample.image.shape[:2]:
            raise UserError(f"{path} is {labels.shape}, the image {sample.image.shape[:2]}")
        return labels

    return segment


def predict_labels(cfg: config.Config, run: Run) -> Segmenter:
    """Applies the trained network; raises UserError without a checkpoint."""
    from common.tf import checkpoint  # TensorFlow is imported for new images only
    from dfc_tf import model, train

    path = run.require_checkpoint().path / "model.weights.h5"
    net = model.build(cfg.model, model.n_channels(path), cfg.training.seed)
    net.compute_dtype = model.compute_dtype(cfg.training.precision)
    checkpoint.load(path, model.by_name(net.variables))

    def segment(sample: data.Sample) -> np.ndarray:
        n = sample.image.shape[2]
        if n != net.n_channels:
            raise UserError(
                f"{sample.path} has {n} channels, the network was trained on {net.n_channels}"
            )
        return train.predict(net, sample.image, cfg.model.frozen_statistics)

    return segment


def write(
    cfg: config.Config, run: Run, dataset: data.ImageDataset, segment: Segmenter, out: Path
) -> None:
    """predictions.csv, and the files of each image in segments/NAME and images/[NAME]."""
    rows = []
    for i in tqdm(range(len(dataset)), "writing", unit="image", disable=None):
        sample = dataset[i]
        labels = regions.postprocess(segment(sample), sample.image, cfg.model)
        folder = out / "images" / (sample.name if len(dataset) > 1 else "")
        figures.write(folder, out / "segments" / sample.name, sample, labels)
        if out == run.path:
            figures.write_evolution(folder, run.path / "evolution" / sample.name)
            figures.write_baseline(folder, run.path / "baseline" / f"{sample.name}.npz", sample)
        fractions = np.bincount(labels.ravel()) / labels.size
        n_labels, n_segments = np.count_nonzero(fractions), int(components(labels).max()) + 1
        row = [sample.path, sample.name, *labels.shape, n_labels, n_segments, fractions.max()]
        rows.append(row)
    figures.write_captions(out / "images", dataset.names)
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    predictions.write_csv(out / "predictions.csv", columns)


if __name__ == "__main__":
    cli.main(main)
