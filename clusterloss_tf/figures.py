"""Figures of a run: nearest neighbors with hits and misses, t-SNE maps, galleries of clusters."""

import importlib.util
from pathlib import Path

import numpy as np

from common import datasets, images

N_QUERIES, N_NEAREST = 12, 8
MAX_MAPPED = 1000  # images in the maps of pred.py; tsne.py shows all
N_SHOWN = 10  # images in a strip of cluster members
SIDE, TILE = 900, 24  # pixels of the mosaic and of an image in it
HIT, MISS, QUERY = (60, 160, 60), (230, 60, 40), (40, 40, 40)  # frame colors
CAPTIONS = {
    "retrieval.png": (
        "Retrieval",
        "Each row: a query and its nearest neighbors, framed green if of the same class, else red.",
    ),
    "tsne.png": ("t-SNE", "Embeddings in two dimensions, colored by class, or else by cluster."),
    "tsne_mosaic.png": ("t-SNE of images", "The same map with the images themselves."),
    "clusters": (
        "Clusters",
        "k-means of the embeddings: the members closest to the center, and the farthest.",
    ),
}


def write(
    folder: Path,
    dataset: datasets.Images,
    embeddings: np.ndarray,
    clusters: np.ndarray,
    distances: np.ndarray,
) -> None:
    """All figures of embeddings (n, d); clusters (n,), distances (n,) to their centers."""
    rgb = images.to_channels(dataset.images, 3)
    if len(rgb) > 1:
        grid = retrieval_grid(rgb, embeddings, dataset.labels)
        images.save_png(folder / "retrieval.png", grid)
    rows = np.random.default_rng(0).permutation(len(rgb))[:MAX_MAPPED]
    names = _names(dataset, clusters)
    write_map(folder, rgb[rows], tsne(embeddings[rows]), [names[i] for i in rows])
    scale = _scale(rgb.shape[1])
    for k in range(int(clusters.max()) + 1):
        members = np.flatnonzero(clusters == k)
        members = members[np.argsort(distances[members], kind="stable")]
        strips = {"closest": members[:N_SHOWN], "farthest": members[::-1][:N_SHOWN]}
        for name, shown in strips.items():
            if len(shown):
                strip = images.grid(rgb[shown], len(shown), scale=scale)
                images.save_png(folder / "clusters" / f"{k:02d}" / f"{name}.png", strip)
    images.write_captions(folder, CAPTIONS)


def retrieval_grid(
    rgb: np.ndarray, embeddings: np.ndarray, labels: np.ndarray | None
) -> np.ndarray:
    """One row per query: the query and its nearest neighbors, images uint8 (n, h, w, 3).

    The queries are spread over the classes. labels (n,): neighbors with the query's label have a
    green frame, others red; without labels all are gray.
    """
    n, frame = len(rgb), 2
    order = np.arange(n) if labels is None else np.argsort(labels, kind="stable")
    queries = order[np.linspace(0, n - 1, min(N_QUERIES, n)).astype(int)]
    scale = _scale(rgb.shape[1])
    tiles = []
    for query in queries:
        distances = np.linalg.norm(embeddings - embeddings[query], axis=1)
        distances[query] = -1
        row = np.argsort(distances, kind="stable")[: 1 + N_NEAREST]
        for i, other in enumerate(row):
            color = QUERY
            if i and labels is not None:
                color = HIT if labels[other] == labels[query] else MISS
            image = rgb[other].repeat(scale, 0).repeat(scale, 1)
            height, width = image.shape[:2]
            tile = np.full((height + 2 * frame, width + 2 * frame, 3), color, np.uint8)
            tile[frame:-frame, frame:-frame] = image
            tiles.append(tile)
    return images.grid(np.stack(tiles), len(tiles) // len(queries))


def tsne(embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """Points (n, 2) in [0, 1] of embeddings (n, d); uses openTSNE if it is installed.

    Places fewer than four images in a row, as t-SNE needs more.
    """
    n = len(embeddings)
    perplexity = min(30.0, (n - 1) / 3)
    if n < 4 or np.ptp(embeddings, axis=0).max() == 0:
        points = np.stack([np.arange(n), np.zeros(n)], 1)
    elif importlib.util.find_spec("openTSNE"):
        import openTSNE

        fitted = openTSNE.TSNE(perplexity=perplexity, random_state=seed).fit(embeddings)
        points = np.array(fitted)
    else:
        from sklearn.manifold import TSNE

        method = TSNE(perplexity=perplexity, random_state=seed, init="pca")
        points = method.fit_transform(embeddings)
    points = points - points.min(0)
    return points / max(points.max(), 1e-9)


def write_map(folder: Path, rgb: np.ndarray, points: np.ndarray, names: list[str]) -> None:
    """tsne.png: points (n, 2) colored by name; tsne_mosaic.png: images (n, h, w, 3) at them."""
    from matplotlib.figure import Figure

    figure = Figure((9, 8), layout="constrained")
    axes = figure.add_subplot()
    distinct = sorted(set(names))
    colors = images.palette(len(distinct)) / 255
    for name, color in zip(distinct, colors, strict=True):
        is_member = np.array([other == name for other in names])
        axes.scatter(*points[is_member].T, s=9, color=color, label=name)
    axes.set_axis_off()
    if len(distinct) <= 30:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(folder / "tsne.png", dpi=100)
    mosaic = np.full((SIDE + TILE, SIDE + TILE, 3), 255, np.uint8)
    for image, (x, y) in zip(rgb, points, strict=True):
        top, left = int((1 - y) * SIDE), int(x * SIDE)
        mosaic[top : top + TILE, left : left + TILE] = images.resize(image, TILE)
    images.save_png(folder / "tsne_mosaic.png", mosaic)


def _names(dataset: datasets.Images, clusters: np.ndarray) -> list[str]:
    if dataset.labels is None:
        return [f"cluster {k}" for k in clusters]
    return [dataset.classes[label] for label in dataset.labels]


def _scale(height: int) -> int:
    """How often to repeat each pixel of a small image so that it is about 48 pixels high."""
    return max(1, round(48 / height))
