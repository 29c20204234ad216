"""Figures of a run: galleries, cluster sizes, a map, filters, activations, nearest neighbors."""

from pathlib import Path

import numpy as np
from torch import Tensor

from common import images

N_SHOWN = 10  # members of a cluster per strip
MAX_CLUSTERS = 200  # the largest ones; a report shows no more
MAX_TILE = 96  # pixels
N_MAPPED = 1500  # images of the map
N_CHANNELS, N_TOP = 12, 9
FRAME = 2  # pixels
SAME_CLASS, OTHER_CLASS, QUERY = (60, 160, 60), (230, 60, 40), (40, 40, 40)  # colors of frames
CAPTIONS = {
    "map.png": ("Map", "t-SNE of some embeddings, one color per cluster."),
    "sizes.png": ("Sizes", "Images per cluster, largest first; the line is the mean."),
    "filters.png": (
        "First filters",
        "Weights of the first convolution, each stretched to the full range.",
    ),
    "activations.png": (
        "What activates the last stage",
        "One row per channel: the images with the highest mean activation.",
    ),
    "neighbors.png": (
        "Nearest neighbors",
        "An image, then its nearest neighbors; frames: green for the same class, red for another.",
    ),
    "clusters": ("Clusters", "Members closest to the center, random ones, and the farthest."),
}


def write_clusters(
    folder: Path, pixels: np.ndarray, clusters: np.ndarray, distances: np.ndarray
) -> None:
    """One folder per cluster: its closest member, strips of closest, random and farthest members.

    pixels uint8 (n, h, w, c); clusters (n,); distances (n,) to the center of the cluster.
    """
    sizes, random = np.bincount(clusters), np.random.default_rng(0)
    for k in np.argsort(-sizes, kind="stable")[:MAX_CLUSTERS]:
        members = np.flatnonzero(clusters == k)
        if len(members) == 0:
            continue
        members = members[np.argsort(distances[members], kind="stable")]
        strips = {
            "prototype": members[:1],
            "closest": members[:N_SHOWN],
            "random": random.permutation(members)[:N_SHOWN],
            "farthest": members[::-1][:N_SHOWN],
        }
        for name, chosen in strips.items():
            strip = images.grid(tiles(pixels, chosen), len(chosen))
            images.save_png(folder / f"{k:02d}" / f"{name}.png", strip)


def tiles(pixels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Some of the images (n, h, w, c), enlarged to about 48 pixels or reduced to MAX_TILE."""
    chosen = pixels[indices]
    height, width = chosen.shape[1:3]
    if max(height, width) > MAX_TILE:
        return np.stack([images.shrink(image, MAX_TILE) for image in chosen])
    scale = max(1, round(48 / height))
    return chosen.repeat(scale, 1).repeat(scale, 2)


def write_sizes(path: Path, clusters: np.ndarray, n_clusters: int) -> None:
    """One bar per cluster."""
    from matplotlib.figure import Figure

    sizes = np.sort(np.bincount(clusters, minlength=n_clusters))[::-1]
    figure = Figure((8, 3), layout="constrained")
    axes = figure.add_subplot(xlabel="clusters, largest first", ylabel="images")
    axes.bar(np.arange(len(sizes)), sizes, width=0.9 if len(sizes) < 100 else 1.0, color="#4a78b5")
    axes.axhline(sizes.mean(), color="0.3", linewidth=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlim=(-0.6, len(sizes) - 0.4), xticks=[])
    figure.savefig(path, dpi=100)


def write_map(path: Path, embeddings: np.ndarray, clusters: np.ndarray) -> None:
    """t-SNE of some embeddings (n, d), colored by cluster (n,)."""
    from matplotlib.figure import Figure

    chosen = np.sort(np.random.default_rng(0).permutation(len(embeddings))[:N_MAPPED])
    points, chosen_clusters = tsne(embeddings[chosen]), clusters[chosen]
    colors = images.palette(int(clusters.max()) + 1) / 255
    figure = Figure((8, 7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.scatter(*points.T, s=9, color=colors[chosen_clusters])
    if len(colors) <= 40:
        for k in np.unique(chosen_clusters):
            x, y = np.median(points[chosen_clusters == k], axis=0)
            box = {"facecolor": "white", "edgecolor": colors[k], "boxstyle": "round,pad=0.2"}
            axes.text(x, y, str(k), ha="center", va="center", fontsize=9, bbox=box)
    axes.set_axis_off()
    figure.savefig(path, dpi=100)


def tsne(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (n, d) -> points (n, 2); fewer than four, or equal ones, are put in a row."""
    n = len(embeddings)
    if n < 4 or np.ptp(embeddings, axis=0).max() == 0:
        return np.stack([np.arange(n), np.zeros(n)], 1)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (n - 1) / 3)
    return TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(embeddings)


def write_filters(path: Path, filters: Tensor) -> None:
    """filters (n, c, h, w): in color if c is 3, else every channel in gray."""
    values = filters.detach().float().cpu().numpy()
    if values.shape[1] != 3:
        values = values.reshape(-1, 1, *values.shape[2:])
    values = values[:256]
    low = values.min(axis=(1, 2, 3), keepdims=True)
    high = values.max(axis=(1, 2, 3), keepdims=True)
    values = (values - low) / np.maximum(high - low, 1e-12)
    scale = max(1, round(32 / values.shape[2]))
    images.save_png(path, images.grid(values.transpose(0, 2, 3, 1), 16, scale=scale))


def write_activations(path: Path, pixels: np.ndarray, channels: np.ndarray) -> None:
    """The images (n, h, w, c) that activate some channels most; channels: activations (n, d)."""
    active = np.flatnonzero(np.ptp(channels, axis=0) > 0)
    if len(active) == 0:
        return
    chosen = active[np.linspace(0, len(active) - 1, min(N_CHANNELS, len(active))).astype(int)]
    n = min(N_TOP, len(pixels))
    top = [np.argsort(-channels[:, c], kind="stable")[:n] for c in chosen]
    images.save_png(path, images.grid(tiles(pixels, np.concatenate(top)), n))


def write_neighbors(
    path: Path, pixels: np.ndarray, rows: np.ndarray, labels: np.ndarray | None
) -> None:
    """rows (q, 1 + m): an image and its m nearest neighbors; labels (n,) color the frames."""
    shown = images.to_channels(tiles(pixels, rows.flatten()), 3)
    width = [(0, 0), (FRAME, FRAME), (FRAME, FRAME), (0, 0)]
    framed = np.pad(shown, width)
    inside = np.zeros(framed.shape[1:3], bool)
    inside[FRAME:-FRAME, FRAME:-FRAME] = True
    for i, row in enumerate(rows.flatten()):
        query = rows[i // rows.shape[1], 0]
        color = QUERY
        if i % rows.shape[1] and labels is not None:
            color = SAME_CLASS if labels[row] == labels[query] else OTHER_CLASS
        framed[i][~inside] = color
    images.save_png(path, images.grid(framed, rows.shape[1]))
