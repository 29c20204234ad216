"""The files of a segmentation: label map, areas, cut-outs, figures and the training animation."""

import csv
import logging
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from common import images
from common.bsds import components
from common.run import Run
from dfc_tf import config, data

log = logging.getLogger("dfc_tf.figures")

MAX_FRAMES = 40
MAX_CUTOUTS = 32
CAPTIONS = {
    "overlay.png": ("Overlay", "The image, tinted by its labels."),
    "contours.png": ("Contours", "The borders between labels."),
    "palette.png": ("Labels", "One color per label."),
    "mean_color.png": ("Mean colors", "Every label in the mean color of its pixels."),
    "evolution.gif": ("Evolution", "The labels during training, from the first iteration on."),
    "image.png": ("Image", "The image as it was read."),
    "baseline.png": ("Felzenszwalb", "The baseline: 0.2 seconds, no training."),
}
COLUMNS = "label pixels fraction red green blue left top right bottom components".split()


def save_snapshot(
    run: Run, name: str, step: int, labels: np.ndarray, training: config.Training
) -> None:
    """Saves labels (h, w) for the animation: about MAX_FRAMES per training, more at its start."""
    n_chunks = -(-training.n_iterations // training.check_interval)
    shown = np.unique(np.round(np.linspace(1, n_chunks**0.5, min(MAX_FRAMES, n_chunks)) ** 2))
    if -(-step // training.check_interval) in shown:
        images.save_label_map(run.path / "evolution" / name / f"{step:06d}.png", labels)


def write(folder: Path, files: Path, sample: data.Sample, labels: np.ndarray) -> None:
    """Figures into `folder`, data into `files`; labels (h, w) have the size of the image."""
    rgb = sample.rgb
    colors = images.mean_colors(rgb, labels)
    images.save_png(folder / "overlay.png", images.overlay(rgb, labels))
    images.save_png(folder / "contours.png", images.contours(rgb, labels))
    images.save_png(folder / "palette.png", images.palette(int(labels.max()) + 1)[labels])
    images.save_png(folder / "mean_color.png", colors[labels])
    images.save_png(folder / "image.png", rgb)
    images.save_label_map(files / "labels.png", labels)
    np.save(files / "labels.npy", labels.astype(np.uint16))
    write_areas(files / "areas.csv", labels, colors)
    write_cutouts(files / "masks", rgb, labels)


def write_cutouts(folder: Path, rgb: np.ndarray, labels: np.ndarray) -> None:
    """The pixels of each label on a transparent background; replaces those of an earlier call.

    rgb (h, w, 3) uint8; labels (h, w) from 0, of which the first MAX_CUTOUTS are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9]*.png"):
        old.unlink()
    for label in range(min(int(labels.max()) + 1, MAX_CUTOUTS)):
        inside = (labels == label)[..., None]
        cutout = np.where(inside, np.dstack([rgb, np.full_like(rgb[..., 0], 255)]), 0)
        Image.fromarray(cutout.astype(np.uint8)).save(folder / f"{label:03d}.png")


def write_evolution(folder: Path, snapshots: Path) -> None:
    """The animation of saved snapshots, if there are any."""
    frames = []
    for path in sorted(snapshots.glob("*.png")):
        with Image.open(path) as image:
            frames.append(np.array(image))
    if not frames:
        return
    colors = images.palette(max(int(frame.max()) for frame in frames) + 1)
    scale = max(1, round(320 / max(frames[0].shape)))
    enlarged = [colors[frame].repeat(scale, 0).repeat(scale, 1) for frame in frames]
    images.save_gif(folder / "evolution.gif", enlarged)


def write_baseline(folder: Path, path: Path, sample: data.Sample) -> None:
    """The figure of the baseline saved at `path`; a file that cannot be read is only logged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labels = file["labels"].astype(np.int64)
        colors = images.mean_colors(sample.rgb, labels)
        images.save_png(folder / "baseline.png", colors[labels])
    except (OSError, ValueError, KeyError, BadZipFile):
        log.warning("%s cannot be read: no figure of the baseline", path)


def write_captions(folder: Path, names: list[str]) -> None:
    """Captions for the report, with a section per image if there are several."""
    captions = CAPTIONS
    if len(names) > 1:
        captions = {f"{name}/{file}": text for name in names for file, text in CAPTIONS.items()}
    images.write_captions(folder, captions)


def write_areas(path: Path, labels: np.ndarray, colors: np.ndarray) -> None:
    """A row per label: pixels, fraction of the image, mean color, bounding box, components.

    The box is [left, right) x [top, bottom); colors (labels, 3).
    """
    segments = components(labels)
    first = np.unique(segments, return_index=True)[1]
    n_segments = np.bincount(labels.ravel()[first])
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for label in np.unique(labels).tolist():
            inside = labels == label
            ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            box = [xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]
            n = np.count_nonzero(inside)
            fraction = f"{n / labels.size:.6f}"
            rows.writerow([label, n, fraction, *colors[label], *box, n_segments[label]])
