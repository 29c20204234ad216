"""Figures of a W-Net run: regions, labels, reconstructions, contour maps, evolution."""

import shutil
from pathlib import Path

import numpy as np
import torch

from common import images
from common.pytorch.images import to_tensor
from common.run import Run
from unsup_seg_torch.wnet import config, data, regions
from unsup_seg_torch.wnet.model import WNet

MAX_FRAMES = 40
N_SHOWN = 6  # images whose labels are kept during training
N_BASELINES = 20
TILE_SIDE = 200  # longer side in pixels of an image in the overview
# Title and caption of each file; the first four are about all images, the others about one.
CAPTIONS = {
    "overview.png": (
        "Overview",
        "From left to right: image, regions, labels, regions in their mean color, reconstruction "
        "from the labels, contour map.",
    ),
    "evolution.gif": ("Evolution", "The labels during training, one frame per epoch."),
    "frames.gif": ("Frames", "The labels of one image after the other."),
    "losses.png": ("Losses", "Soft normalized cut and reconstruction error."),
    "image.png": ("Image", "The input."),
    "contours.png": ("Regions", "Boundaries of the merged regions."),
    "labels.png": ("Labels", "The most probable label of each pixel after the CRF."),
    "overlay.png": ("Overlay", "The labels over the image."),
    "mean_color.png": ("Mean colors", "Every region in the mean color of its pixels."),
    "reconstruction.png": ("Reconstruction", "The decoder's output for the labels."),
    "ucm.png": ("Contour map", "The darker a boundary, the later its regions are merged."),
    "baseline.png": ("Felzenszwalb", "The baseline: graph-based segments, without training."),
}


def write_baseline(run: Run, photos: data.Photographs) -> None:
    """Felzenszwalb's segments of the first images: a first result, before the training."""
    for name, image in list(zip(photos.names, photos.images, strict=True))[:N_BASELINES]:
        labels = regions.baseline(image, (500.0,))[0].astype(np.int64)
        path = run.images / (name if len(photos) > 1 else "") / "baseline.png"
        images.save_png(path, images.mean_colors(image, labels)[labels])


@torch.no_grad()
def snapshot(run: Run, cfg: config.Config, net: WNet, photos: data.Photographs, epoch: int) -> None:
    """Keeps the labels of the first images for the animation, at most about MAX_FRAMES times."""
    n_epochs = cfg.training.n_epochs
    if epoch % -(-n_epochs // MAX_FRAMES) and epoch != n_epochs:
        return
    folder = run.path / "evolution"
    folder.mkdir(exist_ok=True)
    net.eval()
    device = next(net.parameters()).device
    labels = {
        f"{i}": net.encode(to_tensor(image[None]).to(device))[0].argmax(0).cpu().numpy()
        for i, image in enumerate(photos.images[:N_SHOWN])
    }
    np.savez_compressed(
        folder / f"{epoch:05d}.npz", **{i: each.astype(np.uint16) for i, each in labels.items()}
    )


def write_evolution(folder: Path, snapshots: Path, n_clusters: int) -> None:
    """The animation of what `snapshot` kept, if anything."""
    colors, frames = images.palette(n_clusters), []
    for path in sorted(snapshots.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            frames.append(images.sheet([[colors[file[name]] for name in file.files]]))
    if frames:
        images.save_gif(folder / "evolution.gif", frames)


def write(
    folder: Path,
    image: np.ndarray,
    labels: np.ndarray,
    merged: np.ndarray,
    reconstruction: np.ndarray,
    ucm: np.ndarray,
    baseline: np.ndarray,
    n_clusters: int,
) -> list[np.ndarray]:
    """The figures of one image; returns its tiles in the overview.

    image, reconstruction uint8 (h, w, 3); labels, merged, baseline (h, w); ucm (2h + 1, 2w + 1).
    """
    contour_map = images.to_uint8(1 - np.sqrt(ucm / max(ucm.max(), 1e-12)))
    shown = {
        "image": image,
        "contours": images.contours(image, merged),
        "labels": images.palette(n_clusters)[labels],
        "mean_color": images.mean_colors(image, merged)[merged],
        "reconstruction": reconstruction,
        "ucm": np.repeat(contour_map[..., None], 3, axis=2),
    }
    baseline = baseline.astype(np.int64)
    others = {
        "overlay": images.overlay(image, labels),
        "baseline": images.mean_colors(image, baseline)[baseline],
    }
    for name, figure in (shown | others).items():
        images.save_png(folder / f"{name}.png", figure)
    return [images.shrink(figure, TILE_SIDE) for figure in shown.values()]


def write_captions(folder: Path, names: list[str]) -> None:
    """Captions for the report, which has a section per image if there are several."""
    captions = dict(CAPTIONS)
    for name in names if len(names) > 1 else []:
        captions |= {f"{name}/{file}": text for file, text in list(CAPTIONS.items())[4:]}
    images.write_captions(folder, captions)


def export(run: Run) -> None:
    """RUN/model.safetensors: the final weights, for --model.weights of another run."""
    weights = run.require_checkpoint().path / "model.safetensors"
    shutil.copyfile(weights, run.path / "model.safetensors")
