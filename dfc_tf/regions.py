"""After the training, in numpy: labels are aligned with the edges of the image, and merged."""

import heapq

import numpy as np

from common.bsds import components
from common.bsds.hierarchy import SIDES, merge, neighbors, region_means
from common.bsds.superpixels import felzenszwalb, smooth
from dfc_tf import config

# Chosen on every second image of BSDS500 train, for the mean of `bsds.best_overlap_miou`.
SCALE, SIGMA = 150, 0.3  # of Felzenszwalb's regions
LABELS_WEIGHT, CONTRAST_WEIGHT, CHANGES_WEIGHT = 0.3, 3.0, 0.03  # relative to colors, in Lab / 100
SIZE_POWER, MAX_COST = 0.1, 0.043  # of a merge


def label_fractions(labels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Fractions of each region by label: two (h, w) -> (regions, labels), rows sum to 1."""
    n, q = int(regions.max()) + 1, int(labels.max()) + 1
    pairs = regions.ravel().astype(np.int64) * q + labels.ravel()
    counts = np.bincount(pairs, minlength=n * q).reshape(n, q)
    return counts / counts.sum(1, keepdims=True)


def majority_labels(labels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Every region takes the most frequent label of its pixels: two (h, w) -> (h, w)."""
    return label_fractions(labels, regions).argmax(1)[regions]


def merge_similar(labels: np.ndarray, colors: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Merges neighboring regions of similar color and labels with no edge between them.

    labels, regions (h, w), colors (h, w, c) -> (h, w), integers from 0. See `hierarchy.merge`: the
    features are mean color and fractions of labels, the contrast is the step of color.
    """
    fractions = label_fractions(labels, regions)
    features = np.concatenate([region_means(regions, colors), LABELS_WEIGHT * fractions], 1)
    steps = [np.linalg.norm(colors[a] - colors[b], axis=-1) for a, b in SIDES]
    merged = merge(
        regions,
        features,
        steps,
        contrast_weight=CONTRAST_WEIGHT,
        changes=labels,
        changes_weight=CHANGES_WEIGHT,
        size_power=SIZE_POWER,
    )
    return merged.cut(MAX_COST)


def merge_labels(labels: np.ndarray, image: np.ndarray, n_labels: int) -> np.ndarray:
    """Merges labels until n_labels are left, each time the two of least cost (Ward).

    labels (h, w) int, image (h, w, c); the cost is the increase of the squared differences between
    pixels and the mean of their label. The number of the larger one is kept.
    """
    names, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    means, sizes = region_means(index, image), sizes.astype(np.float64)

    def costs_of(i: int) -> np.ndarray:
        gaps = ((means - means[i]) ** 2).sum(1) * sizes[i] * sizes / (sizes[i] + sizes)
        gaps[[*merged, i]] = np.inf
        return gaps

    merged: list[int] = []
    parent = np.arange(len(names))
    costs = np.stack([costs_of(i) for i in parent])
    while len(names) - len(merged) > n_labels:
        a, b = np.unravel_index(costs.argmin(), costs.shape)
        a, b = (a, b) if sizes[a] >= sizes[b] else (b, a)
        means[a] = (means[a] * sizes[a] + means[b] * sizes[b]) / (sizes[a] + sizes[b])
        sizes[a] += sizes[b]
        parent[b] = a
        merged.append(b)
        costs[b] = costs[:, b] = np.inf
        costs[a] = costs[:, a] = costs_of(a)
    return names[_roots(parent)][index].reshape(labels.shape)


def merge_small(labels: np.ndarray, image: np.ndarray, min_pixels: float) -> np.ndarray:
    """Connected segments below min_pixels take the label of the neighbor of most similar color.

    labels (h, w) int, image (h, w, c); the smallest segment first.
    """
    segments = components(labels, 4)
    sizes = np.bincount(segments.ravel()).astype(np.float64)
    sums = region_means(segments, image) * sizes[:, None]
    near: list[set[int]] = [set() for _ in sizes]
    for i, j in neighbors(segments).tolist():
        near[i].add(j)
        near[j].add(i)
    parent = np.arange(len(sizes))
    queue = [(size, i) for i, size in enumerate(sizes) if size < min_pixels]
    heapq.heapify(queue)
    while queue:
        size, i = heapq.heappop(queue)
        if parent[i] != i or size != sizes[i] or not near[i]:
            continue  # already merged, or queued again with its new size
        others = np.array(sorted(near[i]))
        gaps = sums[others] / sizes[others, None] - sums[i] / sizes[i]
        j = int(others[(gaps**2).sum(1).argmin()])
        parent[i] = j
        sizes[j] += sizes[i]
        sums[j] += sums[i]
        for k in near[i]:
            near[k].remove(i)
            if k != j:
                near[k].add(j)
                near[j].add(k)
        if sizes[j] < min_pixels:
            heapq.heappush(queue, (sizes[j], j))
    first = np.unique(segments, return_index=True)[1]
    return labels.ravel()[first][_roots(parent)][segments]


def _roots(parent: np.ndarray) -> np.ndarray:
    """The last of each chain of parents: (n,) -> (n,)."""
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent


def postprocess(labels: np.ndarray, image: np.ndarray, model_cfg: config.Model) -> np.ndarray:
    """The final segmentation that the config asks for.

    labels (h, w), image (h, w, c) -> (h, w) int64 from 0, the largest label first.
    """
    labels = labels.astype(np.int64)
    if model_cfg.regions == "majority":
        labels = majority_labels(labels, felzenszwalb(image, 100))
    elif model_cfg.regions == "merge":
        colors = smooth(image)
        labels = merge_similar(labels, colors, felzenszwalb(colors, SCALE, SIGMA))
    if model_cfg.min_area:
        labels = merge_small(labels, image, model_cfg.min_area * labels.size)
    if model_cfg.n_labels:
        labels = merge_labels(labels, image, model_cfg.n_labels)
    _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.argsort(np.argsort(-sizes, kind="stable"))
    return order[index].reshape(labels.shape)
