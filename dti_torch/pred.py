"""Assigns images to clusters: python dti_torch/pred.py RUN [--input FILE_OR_FOLDER] [--out DIR]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import dataclasses
import logging
import shutil

import numpy as np
import torch
from tqdm import tqdm

from common import UserError, cli, datasets
from common.run import Run
from dti_torch import config, data, model, pictures, train

log = logging.getLogger("dti_torch.pred")

BATCH = 256
COLUMNS = ["path", "cluster", "distance", "margin"]


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Assign images to the clusters of a run: the training images, or new ones.",
        input={"metavar": "FILE_OR_FOLDER", "help": "new images; default: those of the training"},
        out={
            "metavar": "DIR",
            "help": "where to write; default RUN, with --input RUN/predictions_NAME",
        },
    )
    net = load(cfg, run)
    if args.input is None:
        dataset, out = data.load(cfg.dataset), Path(args.out or run.path)
        if dataset.checksum != run.meta["dataset_checksum"]:
            raise UserError("the data set is not what it was in training: give it as --input")
    else:
        source = Path(args.input)
        dataset = fit_to(net, load_new(cfg.dataset, net, source))
        out = Path(args.out or run.path / f"predictions_{source.resolve().stem}")
    found, expected = dataset.images.shape[1:], tuple(net.prototypes.movedim(1, -1).shape[1:])
    if found != expected:
        raise UserError(f"the config gives images {found}, the prototypes are {expected}")
    distances, moved = predict(net, dataset.images)
    write(out, net, dataset, distances, moved)
    log.info(
        "%d images in %d clusters: %s", len(distances), len(net.prototypes), out / "predictions.csv"
    )
    if out == run.path:
        pictures.write_overview(run, net, dataset.images[: pictures.N_QUERIES])


def load(cfg: config.Config, run: Run) -> model.DTI:
    """The model of the run's latest checkpoint, to evaluate; raises UserError without one."""
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        raise UserError(
            f"{run.path} has no checkpoint yet: train.py --resume {run.path} goes on with it"
        )
    weights = checkpoint.path / "model.safetensors"
    shape = model.read(weights).get("prototypes", torch.empty(1, 1, 1, 1)).shape[1:]
    prototypes = torch.zeros(cfg.model.n_prototypes, *shape)  # `load` names another number
    net = model.build(cfg.model, prototypes).to(train.device())
    model.load(net, weights)
    net.encoder_dtype = model.encoder_dtype(cfg.training.precision, net.prototypes.device)
    net.n_active = len(net.transformations)
    return net.eval()


def load_new(cfg: config.Dataset, net: model.DTI, source: Path) -> datasets.Images:
    """New images of the prototypes' size; a square is cut from their centre, as in training."""
    height, width = (side - 2 * cfg.margin for side in net.prototypes.shape[2:])
    size = height if height == width else (height, width)
    found = datasets.load("folder", path=source, size=size, max_bad=cfg.max_bad)
    return data.add_margin(found, cfg.margin)


def fit_to(net: model.DTI, dataset: datasets.Images) -> datasets.Images:
    """Gray images become RGB, or the reverse, as the prototypes are."""
    images, channels = dataset.images, net.prototypes.shape[1]
    if images.shape[3] < channels:
        images = images.repeat(channels, axis=3)
    elif images.shape[3] > channels:
        images = np.round(images @ np.array([[0.299], [0.587], [0.114]])).astype(
            np.uint8
        )  # ITU-R 601, as Pillow
    return dataclasses.replace(dataset, images=images)


@torch.no_grad()
def predict(net: model.DTI, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """images uint8 (n, h, w, c) -> distances (n, k) as DTI.forward, and the nearest prototypes.

    The prototypes are moved to meet the images, and of the same shape and type.
    """
    distances, moved = [], np.empty_like(images)
    for start in tqdm(range(0, len(images), BATCH), "assigning", unit="batch", disable=None):
        batch = data.to_float(data.to_device(images[start : start + BATCH], net.prototypes.device))
        parameters = net.predict_parameters(batch)
        scores = net.scores(batch, parameters)
        distances.append(scores.cpu().numpy())
        moved[start : start + BATCH] = pictures.to_pixels(net.meet(scores.argmin(1), parameters))
    return np.concatenate(distances), moved


def write(
    out: Path, net: model.DTI, dataset: datasets.Images, distances: np.ndarray, moved: np.ndarray
) -> None:
    """predictions.npz and .csv, reconstructions.npy, and the pictures of the clusters."""
    clusters = distances.argmin(1)
    ordered = np.sort(distances, axis=1)
    margins = (
        ordered[:, 1] - ordered[:, 0] if distances.shape[1] > 1 else np.full(len(clusters), np.nan)
    )
    arrays = {"clusters": clusters, "distances": distances}
    if dataset.labels is not None:
        arrays |= {"labels": dataset.labels, "classes": np.array(dataset.classes)}
    try:
        if (out / "predictions.npz").exists():  # else it is no work of ours
            shutil.rmtree(out / "images" / "clusters", ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(out / "predictions.npz", **arrays)
        np.save(out / "reconstructions.npy", moved)
        with open(out / "predictions.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for path, k, nearest, margin in zip(
                dataset.paths, clusters, ordered[:, 0], margins, strict=True
            ):
                rows.writerow([path, k, f"{nearest:.6g}", f"{margin:.6g}"])
        pictures.write_clusters(
            out / "images" / "clusters", net, dataset.images, clusters, ordered[:, 0]
        )
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None


if __name__ == "__main__":
    cli.main(main)
