"""The final clustering of a training, and the assignment of any images to its clusters."""

import logging
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common import UserError
from common.pytorch import checkpoint
from deepcluster_torch import config
from deepcluster_torch.cluster import kmeans, ward
from deepcluster_torch.cluster.pic import pic
from deepcluster_torch.cluster.whitening import Whitening, whiten
from deepcluster_torch.data.batches import INFERENCE_BATCH

log = logging.getLogger(__name__)

N_NEAREST = 3
MAX_ITERATIONS = 100  # of k-means, which usually converges before


class FinalClustering(NamedTuple):
    """Assigns features to clusters: a whitening, then the nearest centroid, then its group."""

    mean: Tensor  # (f,)
    projection: Tensor  # (f, p)
    centroids: Tensor  # (k, p)
    groups: Tensor  # (k,) int64 in 0 .. n_groups - 1

    @property
    def n_groups(self) -> int:
        return int(self.groups.max()) + 1

    def embed(self, features: Tensor) -> Tensor:
        """Features (n, f) -> whitened points (n, p) of length 1, which are clustered."""
        return Whitening(self.mean, self.projection)(features)

    def assign(self, features: Tensor) -> "Assignments":
        """The clusters of features (n, f); each row's result is independent of the others."""
        parts: list[list[np.ndarray]] = [[], [], [], []]
        for batch in features.split(INFERENCE_BATCH):
            points = self.embed(batch)
            distances, ids = kmeans.nearest(points, self.centroids, len(self.centroids))
            groups = self.groups[ids]  # (b, k), nearest first
            to_group = torch.full((len(batch), self.n_groups), torch.inf, device=points.device)
            to_group.scatter_reduce_(1, groups, distances, "amin")
            to_group, nearest = to_group.sort(dim=1, stable=True)
            n = min(N_NEAREST, self.n_groups)
            values = (nearest[:, :n], to_group[:, :n], ids[:, 0], points)
            for part, value in zip(parts, values, strict=True):
                part.append(value.cpu().numpy())
        return Assignments(*map(np.concatenate, parts))


class Assignments(NamedTuple):
    """The clusters (or groups of merged clusters) of n images."""

    nearest: np.ndarray  # (n, m), the m nearest clusters, nearest first; m is 3 or less
    distances: np.ndarray  # (n, m), squared, to these
    fine: np.ndarray  # (n,) the nearest cluster before merging
    embeddings: np.ndarray  # (n, p) what was clustered

    @property
    def clusters(self) -> np.ndarray:
        return self.nearest[:, 0]


def fit(features: Tensor, cfg: config.Config) -> FinalClustering:
    """Clusters features (n, f) of all images; the last step of every training."""
    began, (whitening, points) = time.perf_counter(), whiten(features, cfg.model)
    if cfg.model.clustering == "pic":
        clusters = pic(points, n_neighbors=cfg.model.n_neighbors, sigma=cfg.model.sigma)
        centroids = means(points, clusters)
    else:
        centroids = kmeans.kmeans(
            points,
            cfg.model.n_clusters,
            n_iterations=max(MAX_ITERATIONS, cfg.training.kmeans_iterations),
            generator=torch.Generator().manual_seed(cfg.training.seed),
            n_starts=cfg.training.n_init,
        ).centroids
    groups = torch.arange(len(centroids), device=centroids.device)
    n_groups = cfg.model.n_groups
    if n_groups and n_groups < len(centroids):
        nearest = torch.cat(
            [kmeans.nearest(batch, centroids)[1] for batch in points.split(INFERENCE_BATCH)]
        )
        sizes = torch.bincount(nearest.flatten(), minlength=len(centroids))
        groups = ward.merge(centroids, sizes, n_groups).to(centroids.device)
    log.info(
        "clustered %d images: %d clusters in %d groups, %.1f s",
        len(points), len(centroids), int(groups.max()) + 1, time.perf_counter() - began,
    )  # fmt: skip
    return FinalClustering(*whitening, centroids, groups)


def means(points: Tensor, assignments: Tensor) -> Tensor:
    """The mean (k, d) of the points (n, d) of each cluster (n,), none of them empty."""
    k = int(assignments.max()) + 1
    sums = torch.zeros(k, points.shape[1], dtype=points.dtype, device=points.device)
    sums.index_add_(0, assignments, points)
    return sums / torch.bincount(assignments, minlength=k)[:, None]


def warm_start(points: Tensor, assignments: Tensor, k: int) -> Tensor | None:
    """The `means` to start k-means from; None unless all k clusters of assignments have members."""
    if assignments.min() < 0 or (torch.bincount(assignments, minlength=k) == 0).any():
        return None
    return means(points, assignments)


def load(path: Path, device: torch.device, cfg: config.Config) -> FinalClustering:
    """The final clustering of a checkpoint; raises UserError for one of another config."""
    saved = checkpoint.read(path)
    if saved.keys() != set(FinalClustering._fields):
        names = ", ".join(sorted(saved))
        raise UserError(f"{path} is not a readable checkpoint: it holds {names}")
    clustering = FinalClustering(**{name: tensor.to(device) for name, tensor in saved.items()})
    n_clusters = cfg.model.n_clusters
    if cfg.model.clustering == "kmeans" and len(clustering.centroids) != n_clusters:
        raise UserError(
            f"{path} is of another model: it has {len(clustering.centroids)} clusters, the config "
            f"expects {n_clusters}"
        )
    return clustering
