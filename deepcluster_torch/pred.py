"""Assigns images to clusters: python deepcluster_torch/pred.py RUN [--input FILE_OR_FOLDER]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import dataclasses
import logging

import numpy as np
from torch import nn

from common import UserError, cli, datasets
from common.run import Run
from deepcluster_torch import (
    config,
    devices,
    neighbours,
    overview,
    predictions,
    readout,
    split,
    state,
)  # fmt: skip
from deepcluster_torch.readout import Readout

log = logging.getLogger("deepcluster_torch.pred")


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
        folders={
            "choices": ["link", "copy"],
            "help": "also OUT/folders, a folder a cluster, of links to the images or of copies",
        },
        neighbours={
            "action": "store_true",
            "help": "with --input: also the training images nearest to each new one",
        },
    )
    net, clusters = load(cfg, run)
    through, held_out = readout.part(cfg.model, run.meta["mode"]), None
    if args.input is None:
        found, held_out = training_images(cfg, run)
        out = Path(args.out or run.path)
    else:
        source = Path(args.input)
        found = load_new(cfg.dataset, run.meta["image_shape"], source)
        out = Path(args.out or run.path / f"predictions_{source.resolve().stem}")
    assigned = readout.assign(readout.features(net, found.images, cfg, through), clusters)
    predictions.write(out, found, assigned, clusters.n_groups)
    if args.folders:
        predictions.write_folders(out / "folders", found, assigned.clusters, args.folders)
    if args.neighbours and args.input is not None:
        known, _ = training_images(cfg, run)
        features = readout.features(net, known.images, cfg, through)
        of_known = readout.assign(features, clusters).embeddings
        neighbours.write_of_new(out, found, assigned.embeddings, known, of_known)
    if out == run.path:
        overview.write(run, net, cfg, found, held_out, assigned, clusters.n_groups)
        if held_out is not None:
            features = readout.features(net, held_out.images, cfg, through)
            predictions.write_held_out(out, held_out, readout.assign(features, clusters))
    log.info(
        "%d images in %d clusters: %s",
        len(found.paths), clusters.n_groups, out / "predictions.csv",
    )  # fmt: skip


def training_images(cfg: config.Config, run: Run) -> tuple[datasets.Images, datasets.Images | None]:
    """Those that the run has learned from, and those held out; raises UserError if they changed."""
    found, held_out = split.load(cfg.dataset)
    if found.checksum != run.meta["dataset_checksum"]:
        raise UserError("the data set is not what it was in training: give it as --input")
    return found, held_out


def load(cfg: config.Config, run: Run) -> tuple[nn.ModuleDict, Readout]:
    """The network of the run's latest checkpoint, and what makes clusters of its features.

    A run that was stopped has no clusters yet: they are found now, and kept nowhere. Raises
    UserError without a checkpoint, and for one of another config.
    """
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        raise UserError(
            f"{run.path} has no checkpoint yet: train.py --resume {run.path} goes on with it"
        )
    mode, n, shape = (run.meta[name] for name in ("mode", "n_images", "image_shape"))
    now = state.begin(cfg, mode, n, tuple(shape), devices.device(), is_given=False)
    state.load_net(cfg.training, now, checkpoint)
    now.net.eval()
    path = checkpoint.path / "clusters.safetensors"
    if path.exists():
        return now.net, readout.load(path, now, cfg.model)
    log.info("the run is not finished: clustering what its network sees now")
    found, _ = training_images(cfg, run)
    features = readout.features(now.net, found.images, cfg, readout.part(cfg.model, mode))
    return now.net, readout.fit(features, cfg)


def load_new(cfg: config.Dataset, shape: list[int], source: Path) -> datasets.Images:
    """New images of the training's `shape` (h, w, c); a square is cut from their centre."""
    height, width, channels = shape
    size = height if height == width else (height, width)
    found = datasets.load("folder", path=source, size=size, max_bad=cfg.max_bad)
    pixels = found.images
    if pixels.shape[3] < channels:
        pixels = pixels.repeat(channels, axis=3)
    elif pixels.shape[3] > channels:
        gray = pixels @ np.array([[0.299], [0.587], [0.114]])  # ITU-R 601, as Pillow
        pixels = np.round(gray).astype(np.uint8)
    return dataclasses.replace(found, images=pixels)


if __name__ == "__main__":
    cli.main(main)
