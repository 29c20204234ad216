"""Segments of pictures: python dfc_tf/pred.py RUN [--input FILE_OR_FOLDER] [--out DIR]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import dataclasses
import logging
from collections.abc import Callable
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from common import UserError, cli
from common.bsds import components
from common.run import Run
from dfc_tf import config, data, pictures, regions

log = logging.getLogger("dfc_tf.pred")

Labelling = Callable[[data.Picture], np.ndarray]

COLUMNS = ["path", "name", "height", "width", "n_labels", "n_segments", "largest_share"]


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Write the segments of the pictures of a run, or of new pictures.",
        input={"metavar": "FILE_OR_FOLDER", "help": "new pictures; default: those of the training"},
        out={
            "metavar": "DIR",
            "help": "where to write; default RUN, with --input RUN/predictions_NAME",
        },
    )
    if args.input is None:
        found, out = data.Pictures(cfg.dataset), Path(args.out or run.path)
        if found.checksum != run.meta.get("dataset_checksum"):
            raise UserError("the pictures are not what they were in training: give them as --input")
        labels_of = trained(run)
    else:
        source = Path(args.input)
        new = dataclasses.replace(cfg.dataset, path=str(source), split="", scribbles=None)
        found = data.Pictures(new)
        out = Path(args.out or run.path / f"predictions_{source.resolve().stem}")
        labels_of = applied(cfg, run)
    try:
        write(cfg, run, found, labels_of, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    log.info("pictures: %d, %s", len(found), out / "predictions.csv")


def trained(run: Run) -> Labelling:
    """Picture -> its labels (h, w) at the end of the training."""

    def labels_of(picture: data.Picture) -> np.ndarray:
        path = run.path / "labels" / f"{picture.name}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                labels = file["labels"]
        except (OSError, ValueError, KeyError, BadZipFile):
            raise UserError(
                f"{run.path} has no readable labels of {picture.name}: "
                f"train.py --resume {run.path} ends a run that was stopped"
            ) from None
        if labels.shape != picture.rgb.shape[:2]:
            raise UserError(f"{path} is {labels.shape}, the picture {picture.rgb.shape[:2]}")
        return labels

    return labels_of


def applied(cfg: config.Config, run: Run) -> Labelling:
    """Picture -> the labels (h, w) that the trained network gives it; raises UserError."""
    from dfc_tf import model, train  # TensorFlow is loaded for new pictures only

    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        raise UserError(
            f"{run.path} has no checkpoint yet: train.py --resume {run.path} goes on with it"
        )
    path = checkpoint.path / "model.weights.h5"
    net = model.build(cfg.model, model.n_channels(path), cfg.training.seed)
    net.compute_dtype = model.compute_dtype(cfg.training.precision)
    model.load(path, model.by_name(net.variables))

    def labels_of(picture: data.Picture) -> np.ndarray:
        found = picture.image.shape[2]
        if found != net.n_channels:
            raise UserError(
                f"{picture.path} has {found} channels, the network was trained on {net.n_channels}"
            )
        return train.predict(net, picture.image, cfg.model.frozen_statistics)

    return labels_of


def write(
    cfg: config.Config, run: Run, found: data.Pictures, labels_of: Labelling, out: Path
) -> None:
    """predictions.csv, and for every picture its files in segments/NAME and images/[NAME]."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in tqdm(range(len(found)), "writing", unit="picture", disable=None):
        picture = found[i]
        labels = regions.finish(labels_of(picture), picture.image, cfg.model)
        folder = out / "images" / (picture.name if len(found) > 1 else "")
        pictures.write(folder, out / "segments" / picture.name, picture, labels)
        if out == run.path:
            pictures.write_evolution(folder, run.path / "evolution" / picture.name)
            pictures.write_baseline(folder, run.path / "baseline" / f"{picture.name}.npz", picture)
        shares = np.bincount(labels.ravel()) / labels.size
        n_labels, n_segments = np.count_nonzero(shares), int(components(labels).max()) + 1
        row = [picture.path, picture.name, *labels.shape, n_labels, n_segments]
        rows.append([*row, f"{shares.max():.6f}"])
    pictures.write_captions(out / "images", found.names)
    with open(out / "predictions.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    cli.main(main)
