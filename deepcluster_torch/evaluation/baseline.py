"""The baseline that training has to beat: k-means on the pixels."""

import logging

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common import datasets, metrics
from common.run import Run
from deepcluster_torch import config
from deepcluster_torch.cluster.kmeans import kmeans, nearest
from deepcluster_torch.data.batches import INFERENCE_BATCH, batches

log = logging.getLogger(__name__)

MAX_SIDE = 32  # pixels; larger images are averaged down to it
MAX_FITTED = 50_000  # images that k-means is fitted to; the others go to the nearest centroid


def write(run: Run, cfg: config.Config, dataset: datasets.Images) -> None:
    """Writes baseline.npz: clusters (n,), as many as the run's final groups."""
    k = cfg.model.n_groups or cfg.model.n_clusters
    clusters = pixel_kmeans(dataset.images, k, cfg.training.seed)
    np.savez_compressed(run.path / "baseline.npz", clusters=clusters)
    if dataset.labels is None:
        sizes = np.bincount(clusters, minlength=k)
        log.info("baseline: k-means on pixels, cluster sizes %s", sizes.tolist())
    else:
        acc = metrics.clustering_accuracy(dataset.labels, clusters)
        nmi = metrics.nmi(dataset.labels, clusters)
        log.info("baseline: k-means on pixels, acc %.4f, nmi %.4f", acc, nmi)


def pixel_kmeans(images: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Clusters (n,) of images uint8 (n, h, w, c)."""
    generator = torch.Generator().manual_seed(seed)
    fitted = torch.randperm(len(images), generator=generator)[:MAX_FITTED].sort().values
    points = torch.cat([flatten(batch) for batch, _ in batches(images, INFERENCE_BATCH, fitted)])
    clusters = kmeans(points, k, generator=generator, n_starts=3)
    if len(fitted) == len(images):
        return clusters.assignments.numpy()
    ids = [
        nearest(flatten(batch), clusters.centroids)[1]
        for batch, _ in batches(images, INFERENCE_BATCH)
    ]
    return torch.cat(ids)[:, 0].numpy()


def flatten(batch: Tensor) -> Tensor:
    """Images uint8 (b, c, h, w) -> float32 (b, d) in [0, 1], reduced to at most MAX_SIDE pixels."""
    height, width = batch.shape[2:]
    values = batch.float() / 255
    if max(height, width) > MAX_SIDE:
        values = F.adaptive_avg_pool2d(values, (min(height, MAX_SIDE), min(width, MAX_SIDE)))
    return values.flatten(1)
