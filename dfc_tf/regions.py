"""After the training, in numpy: labels meet the edges of the picture, and are merged."""

import heapq
import warnings
from collections.abc import Callable

import numpy as np

from common.bsds import components
from dfc_tf import config

MIN_PIXELS = 20  # of a region
# Chosen on every second picture of BSDS500 train, for the mean of
# `bsds.best_overlap_miou`; colours are Lab in hundreds.
SMOOTHING, SCALE = 0.03, 150  # of the regions
SHARES_WEIGHT, CONTRAST_WEIGHT, CHANGES_WEIGHT = 0.3, 3.0, 0.03  # of labels, borders, both
SIZE_POWER, LARGEST_COST = 0.1, 0.043  # of a merge

SIDES = ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:]))  # pixels, and those beside them


def felzenszwalb(image: np.ndarray, scale: float = 500, sigma: float = 0.5) -> np.ndarray:
    """Graph-based segments of (h, w, c) -> (h, w) int32 of 20 pixels or more; sigma in pixels."""
    from skimage.segmentation import felzenszwalb

    with warnings.catch_warnings():  # of channels other than 1 and 3: they are meant to be channels
        warnings.simplefilter("ignore", RuntimeWarning)
        found = felzenszwalb(image, scale, sigma=sigma, min_size=MIN_PIXELS, channel_axis=-1)
    return found.astype(np.int32)


def smooth(image: np.ndarray) -> np.ndarray:
    """Colours without texture: (h, w, c) in [0, 1] -> Lab in hundreds of the least variation.

    Channels other than three stay what they are. The variation is Rudin, Osher and Fatemi's (1992).
    """
    from skimage.color import rgb2lab
    from skimage.restoration import denoise_tv_chambolle

    colours = rgb2lab(image) / 100 if image.shape[2] == 3 else image
    return denoise_tv_chambolle(colours, SMOOTHING, channel_axis=-1)


def label_shares(labels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Which part of each region has each label: two (h, w) -> (regions, labels), rows sum to 1."""
    n, q = int(regions.max()) + 1, int(labels.max()) + 1
    pairs = regions.ravel().astype(np.int64) * q + labels.ravel()
    counts = np.bincount(pairs, minlength=n * q).reshape(n, q)
    return counts / counts.sum(1, keepdims=True)


def majorities(labels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Every region takes the label that most of its pixels have: two (h, w) -> (h, w)."""
    return label_shares(labels, regions).argmax(1)[regions]


def merge_similar(labels: np.ndarray, colours: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Neighbouring regions join while they, and the pixels along their border, are alike.

    labels, regions (h, w), colours (h, w, c) -> (h, w), numbers of regions. Each time the two join
    whose difference costs least: the squared distance of mean colour and label shares, the squared
    mean contrast along the border, the part of it where labels change; times a power of
    n m / (n + m) for regions of n and m pixels, so that small ones join sooner.
    """
    features = np.concatenate(
        [_means(regions.ravel(), colours, int(regions.max()) + 1),
         SHARES_WEIGHT * label_shares(labels, regions)], 1
    )  # fmt: skip
    sizes = np.bincount(regions.ravel()).astype(np.float64)
    near = borders(
        regions,
        lambda a, b: np.linalg.norm(colours[a] - colours[b], axis=-1),
        lambda a, b: labels[a] != labels[b],
    )
    parent = np.arange(len(sizes))
    versions = [0] * len(sizes)  # a queued pair counts while neither has changed since

    def pair(i: int, j: int) -> tuple[float, int, int, int, int]:
        gap, (n, contrast, changes) = features[i] - features[j], near[i][j]
        cost = gap @ gap + CONTRAST_WEIGHT * (contrast / n) ** 2 + CHANGES_WEIGHT * changes / n
        size = sizes[i] * sizes[j] / (sizes[i] + sizes[j])
        return float(cost) * size**SIZE_POWER, i, j, versions[i], versions[j]

    queue = [pair(i, j) for i in near for j in near[i] if i < j]
    heapq.heapify(queue)
    while queue:
        cost, i, j, version_i, version_j = heapq.heappop(queue)
        if cost > LARGEST_COST:
            break
        if versions[i] != version_i or versions[j] != version_j:
            continue
        total = sizes[i] + sizes[j]
        features[i] = (features[i] * sizes[i] + features[j] * sizes[j]) / total
        sizes[i], parent[j], versions[j] = total, i, -1
        versions[i] += 1
        _join(near, j, i)
        for k in near[i]:
            heapq.heappush(queue, pair(i, k))
    return _roots(parent)[regions]


def _join(near: dict[int, dict[int, np.ndarray]], gone: int, into: int) -> None:
    """The borders of one become those of the other."""
    for k, border in near.pop(gone).items():
        del near[k][gone]
        if k != into:
            near[into][k] = near[k][into] = near[into].get(k, 0) + border


def _roots(parent: np.ndarray) -> np.ndarray:
    """The last of each chain of parents: (n,) -> (n,)."""
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent


def merge_labels(labels: np.ndarray, image: np.ndarray, n_labels: int) -> np.ndarray:
    """Joins labels until n_labels are left, each time the two whose joining costs least (Ward).

    labels (h, w) int, image (h, w, c); the cost is the rise of the squared differences of pixels to
    the mean of their label. The larger one's number stays.
    """
    names, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    means, sizes = _means(index.ravel(), image, len(names)), sizes.astype(np.float64)

    def costs_of(i: int) -> np.ndarray:
        gaps = ((means - means[i]) ** 2).sum(1) * sizes[i] * sizes / (sizes[i] + sizes)
        gaps[[*gone, i]] = np.inf
        return gaps

    gone: list[int] = []
    parent = np.arange(len(names))
    costs = np.stack([costs_of(i) for i in parent])
    while len(names) - len(gone) > n_labels:
        a, b = np.unravel_index(costs.argmin(), costs.shape)
        a, b = (a, b) if sizes[a] >= sizes[b] else (b, a)
        means[a] = (means[a] * sizes[a] + means[b] * sizes[b]) / (sizes[a] + sizes[b])
        sizes[a] += sizes[b]
        parent[b] = a
        gone.append(b)
        costs[b] = costs[:, b] = np.inf
        costs[a] = costs[:, a] = costs_of(a)
    return names[_roots(parent)][index].reshape(labels.shape)


def merge_small(labels: np.ndarray, image: np.ndarray, min_pixels: float) -> np.ndarray:
    """Connected pieces below min_pixels join the neighbour of the most similar mean colour.

    labels (h, w) int, image (h, w, c); the smallest piece first. A piece takes its neighbour's
    label.
    """
    pieces = components(labels, 4)
    n = pieces.max() + 1
    sizes = np.bincount(pieces.ravel()).astype(np.float64)
    sums = _means(pieces.ravel(), image, n) * sizes[:, None]
    near = borders(pieces)
    parent = np.arange(n)
    queue = [(size, i) for i, size in enumerate(sizes) if size < min_pixels]
    heapq.heapify(queue)
    while queue:
        size, i = heapq.heappop(queue)
        if parent[i] != i or size != sizes[i] or not near[i]:
            continue  # joined already, or has grown and stands again further back
        others = np.fromiter(near[i], int)
        gaps = sums[others] / sizes[others, None] - sums[i] / sizes[i]
        j = int(others[(gaps**2).sum(1).argmin()])
        parent[i] = j
        sizes[j] += sizes[i]
        sums[j] += sums[i]
        _join(near, i, j)
        if sizes[j] < min_pixels:
            heapq.heappush(queue, (sizes[j], j))
    first = np.unique(pieces, return_index=True)[1]
    return labels.ravel()[first][_roots(parent)][pieces]


def borders(
    pieces: np.ndarray, *gaps: Callable[[tuple, tuple], np.ndarray]
) -> dict[int, dict[int, np.ndarray]]:
    """For each number of (h, w) those that it shares sides of pixels with: [how many, *gaps' sums].

    A gap has a value for each pixel of the slice that is its first argument and the one beside it.
    """
    n, pairs, values = int(pieces.max()) + 1, [], []
    for a, b in SIDES:
        apart = pieces[a] != pieces[b]
        low, high = (f(pieces[a], pieces[b])[apart] for f in (np.minimum, np.maximum))
        pairs.append(low.astype(np.int64) * n + high)
        values.append(np.stack([np.ones(len(low)), *(gap(a, b)[apart] for gap in gaps)]))
    pairs, index = np.unique(np.concatenate(pairs), return_inverse=True)
    sums = np.stack([np.bincount(index, row) for row in np.concatenate(values, 1)], 1)
    near: dict[int, dict[int, np.ndarray]] = {i: {} for i in range(n)}
    for pair, border in zip(pairs.tolist(), sums, strict=True):
        i, j = divmod(pair, n)
        near[i][j] = near[j][i] = border
    return near


def _means(index: np.ndarray, image: np.ndarray, n: int) -> np.ndarray:
    """Mean pixel of each number: index (h*w,), image (h, w, c) -> (n, c) float64."""
    values = image.reshape(len(index), -1)
    sums = [np.bincount(index, values[:, c], n) for c in range(values.shape[1])]
    return np.stack(sums, 1) / np.bincount(index, minlength=n)[:, None]


def finish(labels: np.ndarray, image: np.ndarray, cfg: config.Model) -> np.ndarray:
    """What the config asks for after the training; numbers from 0.

    labels (h, w), image (h, w, c) -> (h, w) int64, the largest label first.
    """
    labels = labels.astype(np.int64)
    if cfg.regions == "majority":
        labels = majorities(labels, felzenszwalb(image, scale=100))
    elif cfg.regions == "merge":
        colours = smooth(image)
        labels = merge_similar(labels, colours, felzenszwalb(colours, SCALE, sigma=0.3))
    if cfg.min_area:
        labels = merge_small(labels, image, cfg.min_area * labels.size)
    if cfg.n_labels:
        labels = merge_labels(labels, image, cfg.n_labels)
    _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(np.argsort(-sizes, kind="stable"))
    return order[index].reshape(labels.shape)
