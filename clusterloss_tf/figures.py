"""The pictures of a run: nearest neighbours with hits and misses, a t-SNE map, galleries."""

import importlib.util
from pathlib import Path

import numpy as np

from common import datasets, images

N_QUERIES, N_NEAREST = 12, 8
N_MAPPED = 1000  # images of the map that every prediction draws; tsne.py draws them all
N_SHOWN = 10  # members of a cluster in a strip
SIDE, TILE = 900, 24  # pixels of the mosaic and of an image in it
HIT, MISS, QUERY = (60, 160, 60), (230, 60, 40), (40, 40, 40)
CAPTIONS = {
    "retrieval.png": (
        "Retrieval",
        "An image, then the others nearest to it; green frames are of its class, red ones are not.",
    ),
    "tsne.png": (
        "t-SNE",
        "The embeddings on a plane, a colour a class, or a cluster without labels.",
    ),
    "tsne_mosaic.png": ("t-SNE of images", "The same map, every image at its place."),
    "clusters": (
        "Clusters",
        "k-means on the embeddings: members closest to the centre, and furthest.",
    ),
}


def write(
    folder: Path,
    found: datasets.Images,
    embeddings: np.ndarray,
    clusters: np.ndarray,
    distances: np.ndarray,
) -> None:
    """All pictures of embeddings (n, d); clusters (n,), distances (n,) to their centres."""
    folder.mkdir(exist_ok=True)
    shown = to_rgb(found.images)
    if len(shown) > 1:
        grid = retrieval_grid(shown, embeddings, found.labels)
        images.save_png(folder / "retrieval.png", grid)
    some = np.random.default_rng(0).permutation(len(shown))[:N_MAPPED]
    names = _names(found, clusters)
    write_map(folder, shown[some], tsne(embeddings[some]), [names[i] for i in some])
    scale = _scale(shown.shape[1])
    for k in range(int(clusters.max()) + 1):
        members = np.flatnonzero(clusters == k)
        members = members[np.argsort(distances[members], kind="stable")]
        for name, few in (("closest", members[:N_SHOWN]), ("furthest", members[::-1][:N_SHOWN])):
            if len(few):
                strip = images.grid(shown[few], len(few), scale=scale)
                images.save_png(folder / "clusters" / f"{k:02d}" / f"{name}.png", strip)
    images.write_captions(folder, CAPTIONS)


def retrieval_grid(
    shown: np.ndarray, embeddings: np.ndarray, labels: np.ndarray | None
) -> np.ndarray:
    """A row a query, spread over the classes: images uint8 (n, h, w, 3) -> one picture.

    labels (n,): neighbours of the query's label have green frames, others red, without labels gray.
    """
    n, frame = len(shown), 2
    order = np.arange(n) if labels is None else np.argsort(labels, kind="stable")
    queries = order[np.linspace(0, n - 1, min(N_QUERIES, n)).astype(int)]
    scale = _scale(shown.shape[1])
    tiles = []
    for query in queries:
        distances = np.linalg.norm(embeddings - embeddings[query], axis=1)
        distances[query] = -1
        row = np.argsort(distances, kind="stable")[: 1 + N_NEAREST]
        for i, other in enumerate(row):
            colour = QUERY
            if i and labels is not None:
                colour = HIT if labels[other] == labels[query] else MISS
            image = shown[other].repeat(scale, 0).repeat(scale, 1)
            height, width = image.shape[:2]
            tile = np.full((height + 2 * frame, width + 2 * frame, 3), colour, np.uint8)
            tile[frame:-frame, frame:-frame] = image
            tiles.append(tile)
    return images.grid(np.stack(tiles), len(tiles) // len(queries))


def tsne(embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """A map (n, 2) in [0, 1] of embeddings (n, d), by openTSNE where it is installed.

    Fewer than four images lie in a row: a neighbourhood needs more.
    """
    n = len(embeddings)
    if n < 4 or np.ptp(embeddings, axis=0).max() == 0:
        places = np.stack([np.arange(n), np.zeros(n)], 1)
    else:
        perplexity = min(30.0, (n - 1) / 3)
        if importlib.util.find_spec("openTSNE"):
            import openTSNE

            places = np.array(
                openTSNE.TSNE(perplexity=perplexity, random_state=seed).fit(embeddings)
            )
        else:
            from sklearn.manifold import TSNE

            places = TSNE(perplexity=perplexity, random_state=seed, init="pca").fit_transform(
                embeddings
            )
    places = places - places.min(0)
    return places / max(places.max(), 1e-9)


def write_map(folder: Path, shown: np.ndarray, places: np.ndarray, names: list[str]) -> None:
    """tsne.png, the places (n, 2) by name, and tsne_mosaic.png, the images (n, h, w, 3) there."""
    from matplotlib.figure import Figure

    figure = Figure((9, 8), layout="constrained")
    axes = figure.add_subplot()
    kinds = sorted(set(names))
    colours = images.palette(len(kinds)) / 255
    for kind, colour in zip(kinds, colours, strict=True):
        chosen = np.array([name == kind for name in names])
        axes.scatter(*places[chosen].T, s=9, color=colour, label=kind)
    axes.set_axis_off()
    if len(kinds) <= 30:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(folder / "tsne.png", dpi=100)
    picture = np.full((SIDE + TILE, SIDE + TILE, 3), 255, np.uint8)
    for image, (x, y) in zip(shown, places, strict=True):
        top, left = int((1 - y) * SIDE), int(x * SIDE)
        picture[top : top + TILE, left : left + TILE] = images.resize(image, TILE)
    images.save_png(folder / "tsne_mosaic.png", picture)


def _names(found: datasets.Images, clusters: np.ndarray) -> list[str]:
    if found.labels is None:
        return [f"cluster {k}" for k in clusters]
    return [found.classes[label] for label in found.labels]


def to_rgb(shown: np.ndarray) -> np.ndarray:
    """Gray images (n, h, w, 1) with three equal channels; others as they are."""
    return np.broadcast_to(shown, (*shown.shape[:3], 3))


def _scale(height: int) -> int:
    """How often to repeat the pixels of a small image, to be about 48 pixels high."""
    return max(1, round(48 / height))
