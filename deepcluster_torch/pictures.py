"""The pictures of a run: galleries, sizes, a map, filters, what activates them, neighbours."""

from pathlib import Path

import numpy as np
from torch import Tensor

from common import images

N_SHOWN = 10  # members of a cluster in a strip
MAX_CLUSTERS = 200  # the largest; a report shows no more
MAX_TILE = 96  # pixels
N_MAPPED = 1500  # images of the map
N_CHANNELS, N_TOP = 12, 9
FRAME, HIT, MISS, QUERY = 2, (60, 160, 60), (230, 60, 40), (40, 40, 40)
CAPTIONS = {
    "map.png": (
        "Map",
        "Some embeddings on a plane (t-SNE), a colour a cluster.",
    ),
    "sizes.png": ("Sizes", "Images of each cluster, the largest first; the line is the mean."),
    "filters.png": (
        "First filters",
        "Weights of the first convolution, each stretched to the full range.",
    ),
    "activations.png": (
        "What activates the last stage",
        "A row a channel: the images with the highest mean activation.",
    ),
    "neighbours.png": (
        "Neighbours",
        "An image, then the others nearest to it; green frames are of its class, red ones are not.",
    ),
    "clusters": (
        "Clusters",
        "The members closest to the centre, some at random, and the furthest.",
    ),
}


def write_clusters(
    folder: Path, pixels: np.ndarray, clusters: np.ndarray, distances: np.ndarray
) -> None:
    """A folder a cluster: its closest member, strips of closest, random and furthest members.

    pixels uint8 (n, h, w, c); clusters (n,); distances (n,) to the own centre.
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
            "furthest": members[::-1][:N_SHOWN],
        }
        for name, chosen in strips.items():
            strip = images.grid(tiles(pixels, chosen), len(chosen))
            images.save_png(folder / f"{k:02d}" / f"{name}.png", strip)


def tiles(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some of the images (n, h, w, c), small ones enlarged, large ones made smaller."""
    shown = pixels[rows]
    height, width = shown.shape[1:3]
    if max(height, width) > MAX_TILE:
        shrink = MAX_TILE / max(height, width)
        size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        return np.stack([images.resize(image, size) for image in shown])
    scale = max(1, round(48 / height))
    return shown.repeat(scale, 1).repeat(scale, 2)


def write_sizes(path: Path, clusters: np.ndarray, n_clusters: int) -> None:
    """A bar a cluster."""
    from matplotlib.figure import Figure

    sizes = np.sort(np.bincount(clusters, minlength=n_clusters))[::-1]
    figure = Figure((8, 3), layout="constrained")
    axes = figure.add_subplot(xlabel="clusters, the largest first", ylabel="images")
    axes.bar(np.arange(len(sizes)), sizes, width=0.9 if len(sizes) < 100 else 1.0, color="#4a78b5")
    axes.axhline(sizes.mean(), color="0.3", linewidth=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlim=(-0.6, len(sizes) - 0.4), xticks=[])
    figure.savefig(path, dpi=100)


def write_map(path: Path, embeddings: np.ndarray, clusters: np.ndarray) -> None:
    """Some of the embeddings (n, d) on a plane, a colour a cluster (n,)."""
    from matplotlib.figure import Figure

    some = np.sort(np.random.default_rng(0).permutation(len(embeddings))[:N_MAPPED])
    places, shown = plane(embeddings[some]), clusters[some]
    colours = images.palette(int(clusters.max()) + 1) / 255
    figure = Figure((8, 7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.scatter(*places.T, s=9, color=colours[shown])
    if len(colours) <= 40:
        for k in np.unique(shown):  # the number of a cluster stands where most of it is
            x, y = np.median(places[shown == k], axis=0)
            box = {"facecolor": "white", "edgecolor": colours[k], "boxstyle": "round,pad=0.2"}
            axes.text(x, y, str(k), ha="center", va="center", fontsize=9, bbox=box)
    axes.set_axis_off()
    figure.savefig(path, dpi=100)


def plane(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (n, d) -> places (n, 2); fewer than four, or equal ones, lie in a row."""
    n = len(embeddings)
    if n < 4 or np.ptp(embeddings, axis=0).max() == 0:
        return np.stack([np.arange(n), np.zeros(n)], 1)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (n - 1) / 3)
    return TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(embeddings)


def write_filters(path: Path, filters: Tensor) -> None:
    """filters (n, c, h, w): as colours where c is 3, else channel after channel in gray."""
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
    """channels (n, c), the mean activations on pixels (n, h, w, c'): the top images of some."""
    active = np.flatnonzero(np.ptp(channels, axis=0) > 0)
    if len(active) == 0:
        return
    chosen = active[np.linspace(0, len(active) - 1, min(N_CHANNELS, len(active))).astype(int)]
    n = min(N_TOP, len(pixels))
    top = [np.argsort(-channels[:, c], kind="stable")[:n] for c in chosen]
    images.save_png(path, images.grid(tiles(pixels, np.concatenate(top)), n))


def write_neighbours(
    path: Path, pixels: np.ndarray, rows: np.ndarray, labels: np.ndarray | None
) -> None:
    """rows (q, 1 + m): an image, then those nearest to it; labels (n,) colour their frames."""
    shown = tiles(pixels, rows.flatten())
    if shown.shape[3] == 1:
        shown = shown.repeat(3, axis=3)
    width = [(0, 0), (FRAME, FRAME), (FRAME, FRAME), (0, 0)]
    framed = np.pad(shown, width)
    inside = np.zeros(framed.shape[1:3], bool)
    inside[FRAME:-FRAME, FRAME:-FRAME] = True
    for i, row in enumerate(rows.flatten()):
        query = rows[i // rows.shape[1], 0]
        colour = QUERY
        if i % rows.shape[1] and labels is not None:
            colour = HIT if labels[row] == labels[query] else MISS
        framed[i][~inside] = colour
    images.save_png(path, images.grid(framed, rows.shape[1]))
