"""What is to be looked at of Segmenter's labels: overlays, a legend, the curves."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from common import images
from common.run import Run
from unsup_seg_torch.segmenter.data import IGNORE
from unsup_seg_torch.segmenter.model import Segmenter

CAPTIONS = {
    "overview.png": (
        "Pictures",
        "From left to right: the picture, tinted by the labels found, and by those that people "
        "gave where there are any. The colours are those of the legend.",
    ),
    "legend.png": ("Legend", "The colour of each class, and its share of all pixels."),
    "prior.png": ("Baseline", "The most frequent class at each place of the training's labels."),
    "losses.png": ("Losses", "The cross-entropy of pixels, and the share of them that are right."),
}


def paint(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Labels (h, w) in colours, ignored ones black: uint8 (h, w, 3)"""
    colours = np.zeros((256, 3), np.uint8)
    colours[:n_classes] = images.palette(n_classes)
    return colours[labels]


def overlay(
    image: np.ndarray, labels: np.ndarray, n_classes: int, alpha: float = 0.6
) -> np.ndarray:
    """The picture tinted by labels (h, w); what is ignored stays bare."""
    painted = np.rint((1 - alpha) * image + alpha * paint(labels, n_classes)).astype(np.uint8)
    return np.where(labels[..., None] == IGNORE, image, painted)


def legend(classes: list[str], shares: np.ndarray, shown: np.ndarray | None = None) -> np.ndarray:
    """A row for each class: its colour, name and share; uint8 (h, w, 3).

    shown: bool (k,), the classes that have a row; default all.
    """
    rows = [k for k in range(len(classes)) if shown is None or shown[k]] or [0]
    texts = [f"{classes[k]}  {100 * shares[k]:.1f} %" for k in rows]
    size, pad = 14, 4
    colours = images.palette(len(classes))
    picture = Image.new(
        "RGB", (10 + size + 7 * max(map(len, texts)), pad + 18 * len(rows)), "white"
    )
    draw = ImageDraw.Draw(picture)
    for i, (k, text) in enumerate(zip(rows, texts, strict=True)):
        y = pad + 18 * i
        draw.rectangle((pad, y, pad + size, y + size), fill=tuple(map(int, colours[k])))
        draw.text(
            (2 * pad + size, y + 1), text.encode("latin-1", "replace").decode("latin-1"), "black"
        )
    return np.asarray(picture)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two pictures side by side on white."""
    h, gap = max(left.shape[0], right.shape[0]), 6
    canvas = np.full((h, left.shape[1] + gap + right.shape[1], 3), 255, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + gap :] = right
    return canvas


def write_labels(path: Path, labels: np.ndarray, n_classes: int) -> None:
    """A PNG of one byte a pixel whose values are the labels, shown in their colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(paint(np.arange(256), n_classes).tobytes())
    picture.save(path)


def export(run: Run, net: Segmenter) -> None:
    """The encoder's and decoder's weights alone, for --model.weights of another run."""
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    save_file(weights, run.path / "model.safetensors", net.encoder.describe())
