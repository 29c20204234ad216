"""Plain k-means on the pixels, the first result: what a training has to beat."""

import logging

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common import datasets, metrics
from common.run import Run
from deepcluster_torch import cluster, config, data, views

log = logging.getLogger("deepcluster_torch.baseline")

SIDE = 32  # pixels; larger images are averaged down to it
MAX_FITTED = 50_000  # images that k-means is fitted to; the others go to the nearest centroid


def write(run: Run, cfg: config.Config, found: datasets.Images) -> None:
    """baseline.npz, the clusters (n,) of as many groups as the run is to find."""
    k = cfg.model.n_groups or cfg.model.n_clusters
    clusters = pixel_kmeans(found.images, k, cfg.training.seed)
    np.savez_compressed(run.path / "baseline.npz", clusters=clusters)
    if found.labels is None:
        sizes = np.bincount(clusters, minlength=k)
        log.info("baseline: k-means on pixels, clusters of %s images", sizes.tolist())
    else:
        acc = metrics.clustering_accuracy(found.labels, clusters)
        nmi = metrics.nmi(found.labels, clusters)
        log.info("baseline: k-means on pixels, acc %.4f, nmi %.4f", acc, nmi)


def pixel_kmeans(images: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Clusters (n,) of images uint8 (n, h, w, c)."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(images), generator=generator)[:MAX_FITTED].sort().values
    fitted = torch.cat([pixels(batch) for batch, _ in data.batches(images, views.BATCH, chosen)])
    found = cluster.kmeans(fitted, k, generator=generator, n_starts=3)
    if len(chosen) == len(images):
        return found.assignments.numpy()
    batches = data.batches(images, views.BATCH)
    nearest = [cluster.nearest(pixels(batch), found.centroids)[1] for batch, _ in batches]
    return torch.cat(nearest)[:, 0].numpy()


def pixels(batch: Tensor) -> Tensor:
    """uint8 (b, c, h, w) -> (b, d) float32 in [0, 1], of at most SIDE pixels a side"""
    height, width = batch.shape[2:]
    values = batch.float() / 255
    if max(height, width) > SIDE:
        values = F.adaptive_avg_pool2d(values, (min(height, SIDE), min(width, SIDE)))
    return values.flatten(1)
