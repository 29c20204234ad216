"""Figures of a run: prototypes, their evolution, transformed prototypes, cluster galleries."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import images
from common.run import Run
from dti_torch import data
from dti_torch.model import DTI

MAX_FRAMES = 50
N_QUERIES = 4
BATCH = 128  # images that are aligned at a time
N_SHOWN = 10  # members per gallery strip
CAPTIONS = {
    "prototypes.png": ("Prototypes", "One per cluster, in pixel space."),
    "prototypes.gif": ("Evolution", "The final prototypes from the first epoch to the last."),
    "deviations.png": (
        "Standard deviations",
        "Of each pixel of each prototype; brighter is larger.",
    ),
    "queries.png": (
        "Transformation predictions",
        "An image, then every prototype transformed to match it; the frame marks the nearest.",
    ),
    "queries.gif": (
        "Transformation predictions during training",
        "As above, from the first epoch to the last.",
    ),
    "clusters": (
        "Clusters",
        "Rows of a strip: the images, the images aligned to the prototype, the prototype "
        "transformed to match them. The averages are of the images and of the aligned images.",
    ),
}


@torch.no_grad()
def save_frame(
    run: Run, net: DTI, numbers: Tensor, pixels: Tensor, epoch: int, n_epochs: int
) -> None:
    """Saves prototypes, plain and transformed, for the animations, about MAX_FRAMES times.

    numbers (k,): of the prototypes, so that the animations can follow those that are left.
    """
    if epoch % -(-n_epochs // MAX_FRAMES) and epoch != n_epochs - 1:
        return
    folder = run.path / "evolution"
    folder.mkdir(exist_ok=True)
    net.eval()
    warped = net.warped_prototypes(data.to_float(pixels[:N_QUERIES]))
    net.train()
    frame = {"prototypes": to_pixels(net.prototypes), "queries": to_pixels(warped)}
    np.savez_compressed(folder / f"{epoch:05d}.npz", numbers=numbers.cpu().numpy(), **frame)


def to_pixels(values: Tensor) -> np.ndarray:
    """(..., c, h, w) in [0, 1] -> uint8 (..., h, w, c); other values are clipped."""
    return (values.detach().clamp(0, 1) * 255).round().byte().movedim(-3, -1).cpu().numpy()


def write_overview(run: Run, net: DTI, queries: np.ndarray) -> None:
    """Figures of the prototypes, their evolution, and their match to queries uint8 (q, h, w, c)."""
    folder, scale = run.images, _scale(queries.shape[1])
    prototypes = to_pixels(net.prototypes)
    columns = min(len(prototypes), 10)
    images.save_png(folder / "prototypes.png", images.grid(prototypes, columns, scale=scale))
    if net.is_mixture:
        deviations = net.variances(net.sigmas).sqrt()
        pixels = to_pixels(deviations / deviations.max())
        images.save_png(folder / "deviations.png", images.grid(pixels, columns, scale=scale))
    paths = sorted((run.path / "evolution").glob("*.npz"))
    frames = [np.load(path, allow_pickle=False) for path in paths]
    if frames:  # none if the run was stopped in its first epoch
        kept = [np.isin(frame["numbers"], frames[-1]["numbers"]) for frame in frames]
        grids = [
            images.grid(frame["prototypes"][rows], columns, scale=scale)
            for frame, rows in zip(frames, kept, strict=True)
        ]
        images.save_gif(folder / "prototypes.gif", grids)
        tables = [
            _query_table(queries, frame["queries"][:, rows], None, scale)
            for frame, rows in zip(frames, kept, strict=True)
        ]
        images.save_gif(folder / "queries.gif", tables)
    batch = data.to_float(data.to_device(queries, net.prototypes.device))
    with torch.no_grad():
        warped, nearest = to_pixels(net.warped_prototypes(batch)), net(batch).argmin(1).tolist()
    images.save_png(folder / "queries.png", _query_table(queries, warped, nearest, scale))
    images.write_captions(folder, CAPTIONS)


def write_clusters(
    folder: Path, net: DTI, pixels: np.ndarray, clusters: np.ndarray, distances: np.ndarray
) -> None:
    """A folder per cluster: prototype, strips of closest, random and farthest members, averages.

    pixels uint8 (n, h, w, c); clusters (n,); distances (n,) to the own prototype. The strips are
    described in CAPTIONS.
    """
    scale, random = _scale(pixels.shape[1], height=48), np.random.default_rng(0)
    for k in range(len(net.prototypes)):
        members = np.flatnonzero(clusters == k)
        members = members[np.argsort(distances[members], kind="stable")]
        target = folder / f"{k:02d}"
        prototype = images.grid(to_pixels(net.prototypes[k : k + 1]), scale=scale)
        images.save_png(target / "prototype.png", prototype)
        if len(members) == 0:
            continue
        strips = {
            "closest": members[:N_SHOWN],
            "random": random.permutation(members)[:N_SHOWN],
            "farthest": members[::-1][:N_SHOWN],
        }
        for name, shown in strips.items():
            aligned, warped = align(net, pixels[shown], clusters[shown])
            strip = np.concatenate([pixels[shown], aligned, warped])
            images.save_png(target / f"{name}.png", images.grid(strip, len(shown), scale=scale))
        sample = random.permutation(members)[:1000]
        aligned, _ = align(net, pixels[sample], clusters[sample])
        averages = np.stack([pixels[sample].mean(0), aligned.mean(0)]).round().astype(np.uint8)
        images.save_png(target / "average.png", images.grid(averages, 2, scale=scale))


@torch.no_grad()
def align(net: DTI, pixels: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, h, w, c) aligned to their prototypes, and prototypes transformed to them."""
    aligned, warped = [], []
    for part in np.array_split(np.arange(len(pixels)), -(-len(pixels) // BATCH)):
        batch = data.to_float(data.to_device(pixels[part], net.prototypes.device))
        prototype = torch.from_numpy(clusters[part]).to(batch.device)
        parameters = net.predict_parameters(batch)
        aligned.append(to_pixels(net.align(batch, prototype, parameters)))
        warped.append(to_pixels(net.warp_to_images(prototype, parameters)))
    return np.concatenate(aligned), np.concatenate(warped)


def _query_table(
    queries: np.ndarray, warped: np.ndarray, nearest: list[int] | None, scale: int
) -> np.ndarray:
    """A row per query (q, h, w, c): the query, then warped (q, k, h, w, c), `nearest` framed."""
    frame = 1
    width = [(0, 0), (frame, frame), (frame, frame), (0, 0)]
    rows = []
    for i, query in enumerate(queries):
        row = images.to_channels(np.concatenate([query[None], warped[i]]), 3)
        row = np.pad(row, width, constant_values=255)
        if nearest is not None:
            tile = row[1 + nearest[i]]
            inside = tile[frame:-frame, frame:-frame].copy()
            tile[:] = (230, 60, 40)
            tile[frame:-frame, frame:-frame] = inside
        rows.append(row)
    return images.grid(np.concatenate(rows), rows[0].shape[0], pad=0, scale=scale)


def _scale(side: int, height: int = 56) -> int:
    """The factor by which to enlarge a small image of `side` pixels to about `height` pixels."""
    return max(1, round(height / side))
