"""Segments images with a trained Segmenter: label maps, overlays, areas, confusion matrices."""

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import UserError, cli, images, metrics, predictions
from common.pytorch import checkpoint
from common.pytorch.device import select_device
from common.run import Run
from common.video import Frame
from unsup_seg_torch.segmenter import config, data, figures, model, sliding_window, train
from unsup_seg_torch.vit import visualize
from unsup_seg_torch.vit import weights as vit_weights

log = logging.getLogger("unsup_seg_torch.segmenter.pred")

MAX_SHOWN = 12  # rows of the overview, spread over the images


def predict(cfg: config.Config, run: Run, args: argparse.Namespace) -> None:
    """Segments the test split, or the images of --input; raises UserError."""
    visualize.check_options(args)
    net, out, prior = load(cfg, run), cli.output_folder(run, args), None
    if args.input is None:
        dataset = data.LabeledImages(cfg.dataset, cfg.dataset.test_split or cfg.dataset.split)
        classes = run.meta["classes"]
        if len(dataset.classes) != len(classes):
            raise UserError(
                f"the dataset has {len(dataset.classes)} classes, the run {len(classes)}: "
                f"{cli.PASS_AS_INPUT}"
            )
        if cfg.training.n_epochs == 0:  # no labels were seen: no names of classes, no baseline
            run.note(classes=dataset.classes)
        elif dataset.classes != classes:
            raise UserError(f"the classes changed since training: {cli.PASS_AS_INPUT}")
        else:
            prior = np.load(run.path / "prior.npy", allow_pickle=False)
        dataset.check_classes(1)
        frames = _labeled_frames(dataset)
    else:
        visualize.write(net.encoder, args, out, cfg.dataset.max_bad)
        new = visualize.input_frames(args, cfg.dataset.max_bad)
        frames = ((frame, None) for frame in new)
    with predictions.writing(out):
        n = write(cfg, run, net, frames, out, prior)
    log.info("%d images: %s", n, out / "predictions.csv")


def load(cfg: config.Config, run: Run) -> model.Segmenter:
    """The network of the run's latest checkpoint, in evaluation mode; raises UserError."""
    latest = run.require_checkpoint()
    state = train.initial_state(cfg, len(run.meta["classes"]), select_device())
    checkpoint.load_module(state.networks, latest.path / "model.safetensors")
    vit_weights.adopt_header(state.networks, latest.path / "model.safetensors")
    return state.kept.eval()


def _labeled_frames(dataset: data.LabeledImages) -> Iterator[tuple[Frame, np.ndarray | None]]:
    names = images.unique_names([Path(path) for path in dataset.paths])
    for i, name in enumerate(names):
        image, labels = dataset.full(i)
        yield Frame(name, dataset.paths[i], image), labels


def write(
    cfg: config.Config,
    run: Run,
    net: model.Segmenter,
    frames: Iterator[tuple[Frame, np.ndarray | None]],
    out: Path,
    prior: np.ndarray | None,
) -> int:
    """Writes the results of images with ground truth or None; returns how many there were.

    labels/NAME.png, overlays/NAME.png (with a legend), areas.json, predictions.csv and, with ground
    truth, confusion.npz: matrices (true class, predicted class) of the network and, with a prior,
    of the baseline.
    """
    classes: list[str] = run.meta["classes"]
    k = len(classes)
    for name in ("labels", "images", "overlays"):
        (out / name).mkdir(parents=True, exist_ok=True)
    names = ("network",) if prior is None else ("network", "prior")
    counts = {name: np.zeros((k, k), np.int64) for name in names}
    rows, areas, total = [], {}, np.zeros(k)
    shown, every = [], 1  # every n-th image is shown; the length of a video is not known
    for frame, truth in tqdm(frames, "segmenting", unit="image", disable=None):
        labels = sliding_window.probabilities(net, frame.image, cfg).argmax(0).astype(np.uint8)
        pixels = np.bincount(labels.ravel(), minlength=k)
        fractions = pixels / labels.size
        total += pixels
        areas[frame.name] = {
            classes[i]: round(float(fractions[i]), 6) for i in np.flatnonzero(pixels)
        }
        row = {
            "path": frame.path,
            "name": frame.name,
            "height": labels.shape[0],
            "width": labels.shape[1],
            "n_classes": np.count_nonzero(pixels),
            "largest_class": classes[fractions.argmax()],
            "largest_share": fractions.max(),
        }
        if truth is not None:
            confusion = metrics.confusion(truth, labels, k, data.IGNORE)
            counts["network"] += confusion
            if prior is not None:
                prior_labels = images.resize_labels(prior, truth.shape)
                counts["prior"] += metrics.confusion(truth, prior_labels, k, data.IGNORE)
            scores = metrics.confusion_scores(confusion) if confusion.any() else {}
            row |= {name: scores.get(name, "") for name in ("pixel_accuracy", "miou")}
        rows.append(row)
        figures.write_labels(out / "labels" / f"{frame.name}.png", labels, k)
        overlay = figures.overlay(frame.image, labels, k)
        legend = figures.legend(classes, fractions, pixels > 0)
        images.save_png(out / "overlays" / f"{frame.name}.png", figures.beside(overlay, legend))
        if (len(rows) - 1) % every == 0:
            tiles = [frame.image, overlay]
            tiles += [] if truth is None else [figures.overlay(frame.image, truth, k)]
            shown.append([images.shrink(tile, visualize.TILE_SIDE) for tile in tiles])
        if len(shown) > MAX_SHOWN:
            shown, every = shown[::2], 2 * every
    if not rows:
        raise UserError("no images found in --input")
    images.save_png(out / "images/overview.png", images.sheet(shown))
    images.save_png(out / "images/legend.png", figures.legend(classes, total / total.sum()))
    visualize.write_captions(out / "images", figures.CAPTIONS)
    (out / "areas.json").write_text(json.dumps(areas, indent=1, ensure_ascii=False))
    if counts["network"].any():
        np.savez(out / "confusion.npz", **counts)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    predictions.write_csv(out / "predictions.csv", columns)
    return len(rows)
