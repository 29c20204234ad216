"""Assigns images to clusters: python dti_torch/pred.py RUN [--input FILE_OR_FOLDER] [--out DIR]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import dataclasses
import logging

import numpy as np
import torch
from tqdm import tqdm

from common import UserError, cli, datasets, predictions
from common.images import to_channels
from common.pytorch import checkpoint
from common.pytorch.device import select_device
from common.pytorch.precision import compute_dtype
from common.run import Run
from dti_torch import config, data, figures, model

log = logging.getLogger("dti_torch.pred")

BATCH = 256


def main() -> None:
    description = "Assign images to the clusters of a run: its training images, or new ones."
    cfg, run, args = cli.open_run(config.Config, __file__, description, **cli.NEW_IMAGES)
    net, out = load(cfg, run), cli.output_folder(run, args)
    if args.input is None:
        dataset = data.load(cfg.dataset)
        run.check_dataset(dataset.checksum, cli.PASS_AS_INPUT)
    else:
        dataset = load_new(cfg.dataset, net, Path(args.input))
    shape, expected = dataset.images.shape[1:], tuple(net.prototypes.movedim(1, -1).shape[1:])
    if shape != expected:
        raise UserError(f"the config gives images {shape}, the prototypes are {expected}")
    distances, reconstructions = predict(net, dataset.images)
    write(out, net, dataset, distances, reconstructions)
    n, k = distances.shape
    log.info("%d images in %d clusters: %s", n, k, out / "predictions.csv")
    if out == run.path:
        figures.write_overview(run, net, dataset.images[: figures.N_QUERIES])


def load(cfg: config.Config, run: Run) -> model.DTI:
    """The trained model in evaluation mode; raises UserError if the run has no checkpoint."""
    latest = run.require_checkpoint()
    model.check_number(latest, cfg.model)
    weights = latest.path / "model.safetensors"
    # The shape of the images is not in the config; `load_module` compares all others.
    k = cfg.model.n_prototypes
    saved = checkpoint.read(weights).get("prototypes", torch.empty(k, 1, 1, 1))
    if cfg.model.surplus and len(saved) > k:
        k = len(saved)
        log.warning("training stopped before its surplus prototypes were removed: %d are left", k)
    net = model.build(cfg.model, torch.zeros(k, *saved.shape[1:])).to(select_device())
    checkpoint.load_module(net, weights)
    net.encoder_dtype = compute_dtype(cfg.training.precision, net.prototypes.device)
    net.n_active = len(net.transformations)
    return net.eval()


def load_new(dataset_cfg: config.Dataset, net: model.DTI, path: Path) -> datasets.Images:
    """New images in the size and channels of the prototypes, center-cropped as in training."""
    height, width = (side - 2 * dataset_cfg.margin for side in net.prototypes.shape[2:])
    size = height if height == width else (height, width)
    dataset = datasets.load("folder", path=path, size=size, max_bad=dataset_cfg.max_bad)
    pixels = to_channels(dataset.images, net.prototypes.shape[1])
    return data.add_margin(dataclasses.replace(dataset, images=pixels), dataset_cfg.margin)


@torch.no_grad()
def predict(net: model.DTI, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """images uint8 (n, h, w, c) -> distances (n, k) as DTI.forward, and their reconstructions.

    A reconstruction, uint8 (h, w, c), is the nearest prototype transformed to match the image.
    """
    distances, reconstructions = [], np.empty_like(images)
    for start in tqdm(range(0, len(images), BATCH), "assigning", unit="batch", disable=None):
        batch = data.to_float(data.to_device(images[start : start + BATCH], net.prototypes.device))
        parameters = net.predict_parameters(batch)
        scores = net.scores(batch, parameters)
        distances.append(scores.cpu().numpy())
        nearest = net.warp_to_images(scores.argmin(1), parameters)
        reconstructions[start : start + BATCH] = figures.to_pixels(nearest)
    return np.concatenate(distances), reconstructions


def write(
    out: Path,
    net: model.DTI,
    dataset: datasets.Images,
    distances: np.ndarray,
    reconstructions: np.ndarray,
) -> None:
    """predictions.npz and .csv, reconstructions.npy, and the cluster galleries."""
    clusters, nearest = distances.argmin(1), distances.min(1)
    arrays = {"clusters": clusters, "distances": distances}
    margins = predictions.margins(distances)
    columns = {"cluster": clusters, "distance": nearest, "margin": margins}
    predictions.write(out, dataset, arrays, columns)
    with predictions.writing(out):
        np.save(out / "reconstructions.npy", reconstructions)
        figures.write_clusters(out / "images" / "clusters", net, dataset.images, clusters, nearest)


if __name__ == "__main__":
    cli.main(main)
