"""The pictures of a DTI run: prototypes, their evolution, moved prototypes, galleries."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import images as pictures
from common.run import Run
from dti_torch import data
from dti_torch.model import DTI

MAX_FRAMES = 50
N_QUERIES = 4
N_SHOWN = 10  # members of a cluster in a strip
CAPTIONS = {
    "prototypes.png": ("Prototypes", "One a cluster, in pixel space."),
    "prototypes.gif": ("Evolution", "The prototypes from the first epoch to the last."),
    "deviations.png": (
        "Standard deviations",
        "Of each pixel of each prototype; brighter is wider.",
    ),
    "queries.png": (
        "Transformation predictions",
        "An image, then every prototype moved to meet it; the frame marks the nearest.",
    ),
    "queries.gif": (
        "Transformation predictions while training",
        "The same, from the first epoch to the last.",
    ),
    "clusters": (
        "Clusters",
        "Rows of a strip: the images, the images aligned to the prototype, the prototype moved to "
        "meet them. The averages are of the images, and of the aligned images.",
    ),
}


@torch.no_grad()
def snapshot(run: Run, net: DTI, images: Tensor, epoch: int, n_epochs: int) -> None:
    """Keeps the prototypes and some moved ones for the animations, up to MAX_FRAMES times."""
    if epoch % -(-n_epochs // MAX_FRAMES) and epoch != n_epochs - 1:
        return
    folder = run.path / "evolution"
    folder.mkdir(exist_ok=True)
    net.eval()
    moved = net.moved(data.to_float(images[:N_QUERIES]))
    net.train()
    frame = {"prototypes": to_pixels(net.prototypes), "queries": to_pixels(moved)}
    np.savez_compressed(folder / f"{epoch:05d}.npz", **frame)


def to_pixels(images: Tensor) -> np.ndarray:
    """(..., c, h, w) in [0, 1] -> uint8 (..., h, w, c); what lies outside is clipped."""
    return (images.detach().clamp(0, 1) * 255).round().byte().movedim(-3, -1).cpu().numpy()


def write_overview(run: Run, net: DTI, queries: np.ndarray) -> None:
    """Prototypes, their evolution, and queries uint8 (q, h, w, c) beside every moved prototype."""
    folder, scale = run.images, _scale(queries.shape[1])
    prototypes = to_pixels(net.prototypes)
    columns = min(len(prototypes), 10)
    pictures.save_png(folder / "prototypes.png", pictures.grid(prototypes, columns, scale=scale))
    if net.is_mixture:
        deviations = net.variances(net.sigmas).sqrt()
        spread = to_pixels(deviations / deviations.max())
        pictures.save_png(folder / "deviations.png", pictures.grid(spread, columns, scale=scale))
    paths = sorted((run.path / "evolution").glob("*.npz"))
    frames = [np.load(path, allow_pickle=False) for path in paths]
    if frames:  # a run that was stopped in its first epoch has none
        grids = [pictures.grid(frame["prototypes"], columns, scale=scale) for frame in frames]
        pictures.save_gif(folder / "prototypes.gif", grids)
        rows = [_query_rows(queries, frame["queries"], None, scale) for frame in frames]
        pictures.save_gif(folder / "queries.gif", rows)
    batch = data.to_float(data.to_device(queries, net.prototypes.device))
    with torch.no_grad():
        moved, nearest = to_pixels(net.moved(batch)), net(batch).argmin(1).tolist()
    pictures.save_png(folder / "queries.png", _query_rows(queries, moved, nearest, scale))
    pictures.write_captions(folder, CAPTIONS)


def write_clusters(
    folder: Path, net: DTI, images: np.ndarray, clusters: np.ndarray, distances: np.ndarray
) -> None:
    """A folder a cluster: prototype, strips of closest, random and furthest members, averages.

    images uint8 (n, h, w, c); clusters (n,); distances (n,) to the own prototype. CAPTIONS says
    what a strip is.
    """
    scale, random = _scale(images.shape[1], of=48), np.random.default_rng(0)
    for k in range(len(net.prototypes)):
        members = np.flatnonzero(clusters == k)
        members = members[np.argsort(distances[members], kind="stable")]
        target = folder / f"{k:02d}"
        pictures.save_png(
            target / "prototype.png",
            pictures.grid(to_pixels(net.prototypes[k : k + 1]), scale=scale),
        )
        if len(members) == 0:
            continue
        chosen = {
            "closest": members[:N_SHOWN],
            "random": random.permutation(members)[:N_SHOWN],
            "furthest": members[::-1][:N_SHOWN],
        }
        for name, shown in chosen.items():
            aligned, moved = align(net, images[shown], clusters[shown])
            strip = np.concatenate([images[shown], aligned, moved])
            pictures.save_png(target / f"{name}.png", pictures.grid(strip, len(shown), scale=scale))
        sample = random.permutation(members)[:1000]
        averages = [images[sample].mean(0), align(net, images[sample], clusters[sample])[0].mean(0)]
        average = pictures.grid(np.stack(averages).round().astype(np.uint8), 2, scale=scale)
        pictures.save_png(target / "average.png", average)


@torch.no_grad()
def align(net: DTI, images: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, h, w, c) moved back to their prototypes, and prototypes moved to them."""
    aligned, moved = [], []
    for part in np.array_split(np.arange(len(images)), -(-len(images) // 128)):
        batch = data.to_float(data.to_device(images[part], net.prototypes.device))
        prototype = torch.from_numpy(clusters[part]).to(batch.device)
        parameters = net.predict_parameters(batch)
        aligned.append(to_pixels(net.align(batch, prototype, parameters)))
        moved.append(to_pixels(net.meet(prototype, parameters)))
    return np.concatenate(aligned), np.concatenate(moved)


def _query_rows(
    queries: np.ndarray, moved: np.ndarray, nearest: list[int] | None, scale: int
) -> np.ndarray:
    """queries (q, h, w, c), moved (q, k, h, w, c): a row a query; nearest names the framed."""
    frame = 1
    width = [(0, 0), (frame, frame), (frame, frame), (0, 0)]
    rows = []
    for i, query in enumerate(queries):
        row = np.concatenate([query[None], moved[i]])
        if row.shape[3] == 1:
            row = row.repeat(3, axis=3)
        row = np.pad(row, width, constant_values=255)
        if nearest is not None:
            tile = row[1 + nearest[i]]
            inside = tile[frame:-frame, frame:-frame].copy()
            tile[:] = (230, 60, 40)
            tile[frame:-frame, frame:-frame] = inside
        rows.append(row)
    return pictures.grid(np.concatenate(rows), rows[0].shape[0], pad=0, scale=scale)


def _scale(height: int, of: int = 56) -> int:
    """How often to repeat the pixels of a small image, to be about `of` pixels high."""
    return max(1, round(of / height))
