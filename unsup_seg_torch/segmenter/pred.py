"""Segmenter's labels of pictures: of the held-out ones with their truth, or of new ones."""

import argparse
import csv
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common import UserError, images, metrics
from common.run import Run
from unsup_seg_torch import checkpoint, looks, media
from unsup_seg_torch import data as pictures_data
from unsup_seg_torch import pictures as sheets
from unsup_seg_torch.segmenter import config, data, model, pictures, train, windows

log = logging.getLogger("unsup_seg_torch.segmenter.pred")

COLUMNS = ["path", "name", "height", "width", "n_classes", "largest_class", "largest_share"]
COLUMNS += ["pixel_accuracy", "miou"]
MAX_SHOWN = 12  # rows of the overview, spread over the pictures


def run_prediction(
    cfg: config.Config, run: Run, args: argparse.Namespace, device: torch.device
) -> None:
    """Labels, overlays and areas of each picture; of a labelled split confusion matrices too."""
    net = load(cfg, run, device)
    if args.input is None:
        if args.attention or args.segments:
            raise UserError("--attention and --segments are for new pictures: give --input")
        scenes = data.Scenes(cfg.dataset, cfg.dataset.test_split or cfg.dataset.split)
        if scenes.classes != run.meta["classes"]:
            raise UserError("the classes are not what they were in training: give --input")
        out, found = Path(args.out or run.path), _of_scenes(scenes)
        prior = np.load(run.path / "prior.npy", allow_pickle=False)
    else:
        out = looks.out_of(run.path, args)
        found, prior = ((frame, None) for frame in looks.frames_of(args, cfg.dataset.max_bad)), None
        looks.write(net.encoder, args, out, cfg.dataset.max_bad)
    try:
        n = write(cfg, run, net, found, out, prior)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    log.info("pictures: %d, %s", n, out / "predictions.csv")


def load(cfg: config.Config, run: Run, device: torch.device) -> model.Segmenter:
    """The network of the run's latest checkpoint, to evaluate; raises UserError without one."""
    latest = run.latest_checkpoint()
    if latest is None:
        raise UserError(
            f"{run.path} has no checkpoint yet: train.py --resume {run.path} goes on with it"
        )
    state = train.begin(cfg, len(run.meta["classes"]), device)
    checkpoint.load(state.networks, latest.path / "model.safetensors")
    return state.kept.eval()


def _of_scenes(scenes: data.Scenes) -> Iterator[tuple[media.Frame, np.ndarray | None]]:
    names = pictures_data.unique_names([Path(path) for path in scenes.paths])
    for i, name in enumerate(names):
        image, labels = scenes.full(i)
        yield media.Frame(name, scenes.paths[i], image), labels


def write(
    cfg: config.Config,
    run: Run,
    net: model.Segmenter,
    found: Iterator[tuple[media.Frame, np.ndarray | None]],
    out: Path,
    prior: np.ndarray | None,
) -> int:
    """All files of the pictures; returns how many there were.

    labels/NAME.png, images/NAME.png (overlay and legend), areas.json, predictions.csv, and, where
    the truth is known, confusion.npz: matrices (true, said) of the network and of the baseline.
    """
    classes: list[str] = run.meta["classes"]
    k = len(classes)
    for name in ("labels", "images", "overlays"):
        (out / name).mkdir(parents=True, exist_ok=True)
    counts = {name: np.zeros((k, k), np.int64) for name in ("network", "prior")}
    rows, areas, total = [], {}, np.zeros(k)
    shown, every = [], 1  # of how many pictures one is shown: a film does not say its length
    for frame, truth in tqdm(found, "segmenting", unit="picture", disable=None):
        labels = windows.probabilities(net, frame.image, cfg).argmax(0).astype(np.uint8)
        pixels = np.bincount(labels.ravel(), minlength=k)
        shares = pixels / labels.size
        total += pixels
        areas[frame.name] = {classes[i]: round(float(shares[i]), 6) for i in np.flatnonzero(pixels)}
        row = [frame.path, frame.name, *labels.shape, np.count_nonzero(pixels)]
        row += [classes[shares.argmax()], f"{shares.max():.6f}"]
        if truth is not None:
            one = metrics.confusion(truth, labels, k, data.IGNORE)
            counts["network"] += one
            at_each = pictures_data.nearest(prior, truth.shape)
            counts["prior"] += metrics.confusion(truth, at_each, k, data.IGNORE)
            scores = metrics.confusion_scores(one) if one.any() else {}
            row += [f"{scores[key]:.6f}" if scores else "" for key in ("pixel_accuracy", "miou")]
        rows.append(row)
        pictures.write_labels(out / "labels" / f"{frame.name}.png", labels, k)
        tinted = pictures.overlay(frame.image, labels, k)
        key = pictures.legend(classes, shares, pixels > 0)
        images.save_png(out / "overlays" / f"{frame.name}.png", pictures.beside(tinted, key))
        if (len(rows) - 1) % every == 0:
            parts = [frame.image, tinted]
            parts += [] if truth is None else [pictures.overlay(frame.image, truth, k)]
            shown.append([pictures_data.reduce(each, looks.SHEET_SIDE) for each in parts])
        if len(shown) > MAX_SHOWN:
            shown, every = shown[::2], 2 * every
    if not rows:
        raise UserError("there is no picture to segment")
    images.save_png(out / "images/overview.png", sheets.sheet(shown))
    images.save_png(out / "images/legend.png", pictures.legend(classes, total / total.sum()))
    looks.write_captions(out / "images", pictures.CAPTIONS)
    (out / "areas.json").write_text(json.dumps(areas, indent=1, ensure_ascii=False))
    if counts["network"].any():
        np.savez(out / "confusion.npz", **counts)
    with open(out / "predictions.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS[: len(rows[0])], *rows])
    return len(rows)
