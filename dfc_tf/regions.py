"""After the training, in numpy: labels meet the edges of the picture, and are merged."""

import heapq
import warnings

import numpy as np

from common.bsds import components
from dfc_tf import config

# Chosen on 20 pictures of BSDS500 val, for the mean of `bsds.best_overlap_miou`.
SCALE, MIN_PIXELS = 100, 20  # of the regions
LABEL_WEIGHT = 0.3  # of the shares of labels, against Lab in hundreds
SIZE_POWER, LARGEST_COST = 0.1, 0.0375  # of a merge


def felzenszwalb(image: np.ndarray, scale: float = 500) -> np.ndarray:
    """Graph-based segments of (h, w, c) in [0, 1] -> (h, w) int32; sigma 0.5, 20 pixels or more."""
    from skimage.segmentation import felzenszwalb

    with warnings.catch_warnings():  # of channels other than 1 and 3: they are meant to be channels
        warnings.simplefilter("ignore", RuntimeWarning)
        found = felzenszwalb(image, scale, sigma=0.5, min_size=MIN_PIXELS, channel_axis=-1)
    return found.astype(np.int32)


def label_shares(labels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Which part of each region has each label: two (h, w) -> (regions, labels), rows sum to 1."""
    n, q = int(regions.max()) + 1, int(labels.max()) + 1
    pairs = regions.ravel().astype(np.int64) * q + labels.ravel()
    counts = np.bincount(pairs, minlength=n * q).reshape(n, q)
    return counts / counts.sum(1, keepdims=True)


def majorities(labels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Every region takes the label that most of its pixels have: two (h, w) -> (h, w)."""
    return label_shares(labels, regions).argmax(1)[regions]


def merge_similar(labels: np.ndarray, image: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Neighbouring regions join while they are alike in colour and in their labels.

    labels, regions (h, w), image (h, w, c) -> (h, w), numbers of regions. Each time the two join
    whose difference costs least: the squared distance of mean colour and label shares, times a
    power of n m / (n + m) for regions of n and m pixels, so that small ones join sooner.
    """
    features = np.concatenate(
        [_means(regions.ravel(), _colours(image), int(regions.max()) + 1),
         LABEL_WEIGHT * label_shares(labels, regions)], 1
    )  # fmt: skip
    sizes = np.bincount(regions.ravel()).astype(np.float64)
    near, parent = neighbours(regions), np.arange(len(sizes))
    versions = [0] * len(sizes)  # a queued pair counts while neither has changed since

    def pair(i: int, j: int) -> tuple[float, int, int, int, int]:
        gap = features[i] - features[j]
        size = sizes[i] * sizes[j] / (sizes[i] + sizes[j])
        return float(gap @ gap) * size**SIZE_POWER, i, j, versions[i], versions[j]

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


def _colours(image: np.ndarray) -> np.ndarray:
    """Lab in hundreds of a colour picture; other channels as they are."""
    if image.shape[2] != 3:
        return image
    from skimage.color import rgb2lab

    return rgb2lab(image) / 100


def _join(near: dict[int, set[int]], gone: int, into: int) -> None:
    """The neighbours of one become those of the other."""
    for k in near.pop(gone):
        near[k].discard(gone)
        if k != into:
            near[k].add(into)
            near[into].add(k)


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
    near = neighbours(pieces)
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


def neighbours(pieces: np.ndarray) -> dict[int, set[int]]:
    """The numbers that share a pixel's side with each number of (h, w)."""
    sides = [(pieces[:, :-1], pieces[:, 1:]), (pieces[:-1], pieces[1:])]
    a, b = (np.concatenate([side[i].ravel() for side in sides]) for i in (0, 1))
    pairs = np.unique(np.stack([a, b], 1)[a != b], axis=0)
    near: dict[int, set[int]] = {i: set() for i in range(pieces.max() + 1)}
    for i, j in pairs.tolist():
        near[i].add(j)
        near[j].add(i)
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
        labels = majorities(labels, felzenszwalb(image, SCALE))
    elif cfg.regions == "merge":
        labels = merge_similar(labels, image, felzenszwalb(image, SCALE))
    if cfg.min_area:
        labels = merge_small(labels, image, cfg.min_area * labels.size)
    if cfg.n_labels:
        labels = merge_labels(labels, image, cfg.n_labels)
    _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(np.argsort(-sizes, kind="stable"))
    return order[index].reshape(labels.shape)
