"""Figures of a Segmenter run: overlays, a legend, the baseline."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from common import images
from common.pytorch import checkpoint
from common.run import Run
from unsup_seg_torch.segmenter.data import IGNORE
from unsup_seg_torch.segmenter.model import Segmenter

CAPTIONS = {
    "overview.png": (
        "Overview",
        "From left to right: the image, the predicted labels over it, and the ground truth, if "
        "known. For the colors see the legend.",
    ),
    "legend.png": ("Legend", "The color of each class, and its fraction of all pixels."),
    "prior.png": ("Baseline", "The most frequent class at each position in the training labels."),
    "losses.png": ("Losses", "Pixel cross-entropy and pixel accuracy."),
}


def paint(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Labels (h, w) as colors, ignored pixels black: uint8 (h, w, 3)"""
    colors = np.zeros((256, 3), np.uint8)
    colors[:n_classes] = images.palette(n_classes)
    return colors[labels]


def overlay(
    image: np.ndarray, labels: np.ndarray, n_classes: int, alpha: float = 0.6
) -> np.ndarray:
    """Labels (h, w) over the image (h, w, 3); ignored pixels show the image."""
    painted = np.rint((1 - alpha) * image + alpha * paint(labels, n_classes)).astype(np.uint8)
    return np.where(labels[..., None] == IGNORE, image, painted)


def legend(
    classes: list[str], fractions: np.ndarray, shown: np.ndarray | None = None
) -> np.ndarray:
    """One row per class: its color, name and fraction of the pixels; uint8 (h, w, 3).

    shown: bool (k,), the classes that have a row; default all.
    """
    rows = [k for k in range(len(classes)) if shown is None or shown[k]] or [0]
    texts = [f"{classes[k]}  {100 * fractions[k]:.1f} %" for k in rows]
    size, pad = 14, 4
    colors = images.palette(len(classes))
    legend = Image.new("RGB", (10 + size + 7 * max(map(len, texts)), pad + 18 * len(rows)), "white")
    draw = ImageDraw.Draw(legend)
    for i, (k, text) in enumerate(zip(rows, texts, strict=True)):
        y = pad + 18 * i
        draw.rectangle((pad, y, pad + size, y + size), fill=tuple(map(int, colors[k])))
        draw.text(
            (2 * pad + size, y + 1), text.encode("latin-1", "replace").decode("latin-1"), "black"
        )
    return np.asarray(legend)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two images side by side on white."""
    h, gap = max(left.shape[0], right.shape[0]), 6
    canvas = np.full((h, left.shape[1] + gap + right.shape[1], 3), 255, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + gap :] = right
    return canvas


def write_labels(path: Path, labels: np.ndarray, n_classes: int) -> None:
    """A palette PNG whose values are the labels (h, w) and whose colors are those of the legend."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(paint(np.arange(256), n_classes).tobytes())
    image.save(path)


def export(run: Run, net: Segmenter) -> None:
    """RUN/model.safetensors: weights of encoder and decoder, for --model.weights of another run."""
    checkpoint.write(run.path / "model.safetensors", net.state_dict(), net.encoder.describe())
