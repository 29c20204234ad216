"""The pictures of a run: regions, labels, reconstructions, contour maps, evolution."""

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common import images, run
from unsup_seg_torch import config, data, regions
from unsup_seg_torch.wnet import WNet

MAX_FRAMES = 40
N_SHOWN = 6  # pictures whose labels are kept while training
N_BASELINES = 20
CAPTIONS = {
    "overview.png": (
        "Pictures",
        "From left to right: the picture, its regions, its labels, the regions' mean colours, the "
        "reconstruction from the labels alone, the contour map.",
    ),
    "evolution.gif": ("Evolution", "The labels while training, an epoch a frame."),
    "frames.gif": ("Frames", "The labels of one picture after the other."),
    "losses.png": ("Losses", "The soft normalised cut and the error of reconstruction."),
    "picture.png": ("Picture", "As it was read."),
    "contours.png": ("Regions", "Where one region of the merged segmentation ends."),
    "labels.png": ("Labels", "The network's most probable label after the CRF, one colour each."),
    "overlay.png": ("Overlay", "The picture, tinted by its labels."),
    "mean_colour.png": ("Mean colours", "Every region in the mean colour of its pixels."),
    "reconstruction.png": ("Reconstruction", "What the second half makes of the labels alone."),
    "ucm.png": ("Contour map", "The darker a border, the longer its regions stay apart."),
    "baseline.png": ("Felzenszwalb", "The baseline, in a fifth of a second, without training."),
}


def write_baseline(to: run.Run, found: data.Pictures) -> None:
    """Felzenszwalb's segments of the first pictures: a first result, which training has to beat."""
    for name, image in list(zip(found.names, found.images, strict=True))[:N_BASELINES]:
        labels = regions.baseline(image, (500.0,))[0].astype(np.int64)
        path = to.images / (name if len(found) > 1 else "") / "baseline.png"
        images.save_png(path, images.mean_colors(image, labels)[labels])


@torch.no_grad()
def snapshot(to: run.Run, cfg: config.Config, net: WNet, found: data.Pictures, epoch: int) -> None:
    """Keeps the labels of the first pictures for the animation, up to about MAX_FRAMES times."""
    n_epochs = cfg.training.n_epochs
    if epoch % -(-n_epochs // MAX_FRAMES) and epoch != n_epochs:
        return
    folder = to.path / "evolution"
    folder.mkdir(exist_ok=True)
    net.eval()
    where = next(net.parameters()).device
    labels = {
        f"{i}": net.encode(data.to_float(image[None]).to(where))[0].argmax(0).cpu().numpy()
        for i, image in enumerate(found.images[:N_SHOWN])
    }
    np.savez_compressed(
        folder / f"{epoch:05d}.npz", **{i: each.astype(np.uint16) for i, each in labels.items()}
    )


def write_evolution(folder: Path, snapshots: Path, n_clusters: int) -> None:
    """The animation of what `snapshot` kept, if it kept anything."""
    colours, frames = images.palette(n_clusters), []
    for path in sorted(snapshots.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            frames.append(sheet([[colours[file[name]] for name in file.files]]))
    if frames:
        images.save_gif(folder / "evolution.gif", frames)


def write(
    folder: Path,
    image: np.ndarray,
    labels: np.ndarray,
    merged: np.ndarray,
    decoded: np.ndarray,
    ucm: np.ndarray,
    baseline: np.ndarray,
    n_clusters: int,
) -> list[np.ndarray]:
    """The pictures of one picture; returns the row that the overview has of it.

    image, decoded uint8 (h, w, 3); labels, merged, baseline (h, w); ucm (2h + 1, 2w + 1).
    """
    shown = {
        "picture": image,
        "contours": images.contours(image, merged),
        "labels": images.palette(n_clusters)[labels],
        "mean_colour": images.mean_colors(image, merged)[merged],
        "reconstruction": decoded,
        "ucm": images.to_uint8(1 - np.sqrt(ucm / max(ucm.max(), 1e-12))),
    }
    baseline = baseline.astype(np.int64)
    others = {
        "overlay": images.overlay(image, labels),
        "baseline": images.mean_colors(image, baseline)[baseline],
    }
    for name, picture in (shown | others).items():
        images.save_png(folder / f"{name}.png", picture)
    return [data.reduce(_rgb(each), 200) for each in shown.values()]


def write_frames(path: Path, frames: list[list[np.ndarray]]) -> None:
    """An animation of rows of pictures, all as large as the largest of them."""
    sheets = [sheet([row]) for row in frames]
    size = [max(each.shape[axis] for each in sheets) for axis in (0, 1)]
    canvas = np.full((len(sheets), *size, 3), 255, np.uint8)
    for place, each in zip(canvas, sheets, strict=True):
        place[: each.shape[0], : each.shape[1]] = each
    images.save_gif(path, canvas)


def _rgb(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def sheet(rows: list[list[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures of any sizes on white: as many in each row, columns as wide as their widest."""
    widths = [max(each.shape[1] for each in column) for column in zip(*rows, strict=True)]
    heights = [max(each.shape[0] for each in row) for row in rows]
    size = sum(heights) + gap * (len(heights) - 1), sum(widths) + gap * (len(widths) - 1)
    canvas = np.full((*size, 3), 255, np.uint8)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for each, width in zip(row, widths, strict=True):
            canvas[y : y + each.shape[0], x : x + each.shape[1]] = _rgb(each)
            x += width + gap
        y += height + gap
    return canvas


def write_captions(folder: Path, names: list[str]) -> None:
    """Captions for the report; of several pictures each has a section."""
    of = dict(CAPTIONS)
    for name in names if len(names) > 1 else []:
        of |= {f"{name}/{file}": text for file, text in list(CAPTIONS.items())[4:]}
    images.write_captions(folder, of)


def write_labels(path: Path, labels: np.ndarray) -> None:
    """An image of 16 bits whose values are the labels (h, w)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint16)).save(path)


def export(to: run.Run) -> None:
    """The last weights alone, for --model.weights of another run."""
    shutil.copyfile(
        to.latest_checkpoint().path / "model.safetensors", to.path / "model.safetensors"
    )
