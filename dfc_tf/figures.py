"""The files of a segmentation: label map, pictures, areas, masks, and how it came to be."""

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

log = logging.getLogger("dfc_tf.pictures")

MAX_FRAMES = 40
MAX_MASKS = 32
CAPTIONS = {
    "overlay.png": ("Overlay", "The picture, tinted by its labels."),
    "contours.png": ("Contours", "Where one label ends and another begins."),
    "palette.png": ("Labels", "One colour a label."),
    "mean_colour.png": ("Mean colours", "Every label in the mean colour of its pixels."),
    "evolution.gif": ("Evolution", "The labels while training, from the first iteration on."),
    "picture.png": ("Picture", "As it was read."),
    "baseline.png": ("Felzenszwalb", "The baseline, in a fifth of a second and without training."),
}
COLUMNS = "label pixels share red green blue left top right bottom components".split()


def snapshot(run: Run, name: str, step: int, labels: np.ndarray, training: config.Training) -> None:
    """Keeps labels (h, w) for the animation, up to about MAX_FRAMES times, early ones denser."""
    n_chunks = -(-training.n_iterations // training.check_interval)
    shown = np.unique(np.round(np.linspace(1, n_chunks**0.5, min(MAX_FRAMES, n_chunks)) ** 2))
    if -(-step // training.check_interval) in shown:
        path = run.path / "evolution" / name / f"{step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels.astype(np.uint16)).save(path)


def write(folder: Path, files: Path, picture: data.Picture, labels: np.ndarray) -> None:
    """Pictures into `folder`, data into `files`: labels (h, w) of a picture of the same size."""
    rgb = picture.rgb
    means = images.mean_colors(rgb, labels)
    images.save_png(folder / "overlay.png", images.overlay(rgb, labels))
    images.save_png(folder / "contours.png", images.contours(rgb, labels))
    images.save_png(folder / "palette.png", images.palette(int(labels.max()) + 1)[labels])
    images.save_png(folder / "mean_colour.png", means[labels])
    images.save_png(folder / "picture.png", rgb)
    files.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint16)).save(files / "labels.png")
    np.save(files / "labels.npy", labels.astype(np.uint16))
    write_areas(files / "areas.csv", labels, means)
    write_masks(files / "masks", rgb, labels)


def write_masks(folder: Path, rgb: np.ndarray, labels: np.ndarray) -> None:
    """The pixels of each label on nothing, those of an earlier call replaced; the first MAX_MASKS.

    rgb (h, w, 3) uint8, labels (h, w) from 0, the largest first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9]*.png"):
        old.unlink()
    for label in range(min(int(labels.max()) + 1, MAX_MASKS)):
        inside = (labels == label)[..., None]
        cut = np.where(inside, np.dstack([rgb, np.full_like(rgb[..., 0], 255)]), 0)
        Image.fromarray(cut.astype(np.uint8)).save(folder / f"{label:03d}.png")


def write_evolution(folder: Path, snapshots: Path) -> None:
    """The animation of what `snapshot` kept, if it kept anything."""
    frames = []
    for path in sorted(snapshots.glob("*.png")):
        with Image.open(path) as picture:
            frames.append(np.array(picture))
    if not frames:
        return
    colours = images.palette(max(int(frame.max()) for frame in frames) + 1)
    scale = max(1, round(320 / max(frames[0].shape)))
    grown = [colours[frame].repeat(scale, 0).repeat(scale, 1) for frame in frames]
    images.save_gif(folder / "evolution.gif", grown)


def write_baseline(folder: Path, path: Path, picture: data.Picture) -> None:
    """The segments that the training left at `path`, drawn; an unreadable file is no reason."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labels = file["labels"].astype(np.int64)
        means = images.mean_colors(picture.rgb, labels)
        images.save_png(folder / "baseline.png", means[labels])
    except (OSError, ValueError, KeyError, BadZipFile):
        log.warning("%s cannot be read: no picture of the baseline", path)


def write_captions(folder: Path, names: list[str]) -> None:
    """Captions for the report; of several pictures each has a section."""
    of = dict(CAPTIONS)
    if len(names) > 1:
        of = {f"{name}/{file}": text for name in names for file, text in CAPTIONS.items()}
    images.write_captions(folder, of)


def write_areas(path: Path, labels: np.ndarray, colours: np.ndarray) -> None:
    """A row a label: pixels, share, mean colour, bounding box [left, right), connected pieces."""
    pieces = components(labels)
    first = np.unique(pieces, return_index=True)[1]
    n_pieces = np.bincount(labels.ravel()[first])
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for label in np.unique(labels).tolist():
            inside = labels == label
            ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            box = [xs[0], ys[0], xs[-1] + 1, ys[-1] + 1]
            n = np.count_nonzero(inside)
            share = f"{n / labels.size:.6f}"
            rows.writerow([label, n, share, *colours[label], *box, n_pieces[label]])
