"""From images to clusters, without chance: features of all images, and what assigns them."""

import logging
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from deepcluster_torch import cluster, config, devices, merging, pic, state, views

log = logging.getLogger("deepcluster_torch.readout")

N_NEAREST = 3
N_ITERATIONS = 100  # of the last k-means, at most: it decides, so it goes on until nothing moves
PIC_NEEDS = 100_000  # images beyond which its exact neighbours would take hours


class Readout(NamedTuple):
    """What makes a cluster of a feature: projection, centroids, and the group of each."""

    mean: Tensor  # (f,)
    projection: Tensor  # (f, p)
    centroids: Tensor  # (k, p)
    groups: Tensor  # (k,) int64 in 0 .. n_groups - 1

    @property
    def n_groups(self) -> int:
        return int(self.groups.max()) + 1

    def embed(self, features: Tensor) -> Tensor:
        """features (n, f) -> what is clustered (n, p), of length 1"""
        return cluster.Whitening(self.mean, self.projection)(features)


class Assigned(NamedTuple):
    """Of each image: its 3 nearest clusters and the squared distances to them, nearest first."""

    nearest: np.ndarray  # (n, m), m at most 3
    distances: np.ndarray  # (n, m)
    fine: np.ndarray  # (n,) the nearest before the clusters were merged
    embeddings: np.ndarray  # (n, p)

    @property
    def clusters(self) -> np.ndarray:
        return self.nearest[:, 0]

    @property
    def margins(self) -> np.ndarray:
        """How much further the second cluster is; NaN where there is only one."""
        if self.distances.shape[1] == 1:
            return np.full(len(self.distances), np.nan, np.float32)
        return self.distances[:, 1] - self.distances[:, 0]


def part(cfg: config.Model, mode: str) -> str | None:
    """The part of the net behind the trunk that features go through before the last clustering."""
    return "projection" if mode == "v2" and cfg.readout == "embedding" else None


@torch.no_grad()
def features(
    net: nn.ModuleDict, images: np.ndarray, cfg: config.Config, through: str | None = None
) -> Tensor:
    """images uint8 (n, h, w, c) in their order -> features (n, f) float32 on the device.

    through: a further part of the net, the projection. Raises UserError for NaN.
    """
    device = next(net.parameters()).device
    was_training, parts = net.training, []
    net.eval()
    for batch in views.centres(images, cfg.model, device):
        with devices.autocast(cfg.training, device):
            found = net["trunk"](batch)
            found = net[through](found) if through else found
        parts.append(found.float())
    net.train(was_training)
    found = torch.cat(parts)
    if not found.isfinite().all():
        raise UserError("the features became NaN or infinite: lower training.lr")
    return found


def points(found: Tensor, cfg: config.Model) -> tuple[cluster.Whitening, Tensor]:
    """Features (n, f) as they are clustered: projected, of length 1 (paper, section 3.4)."""
    if cfg.pca_dim is None:
        n = found.shape[1]
        identity = torch.eye(n, device=found.device)
        whitening = cluster.Whitening(torch.zeros(n, device=found.device), identity)
        return whitening, F.normalize(found)
    whitening = cluster.Whitening.fit(found, cfg.pca_dim, cfg.eigen_power)
    return whitening, whitening(found)


def fit(found: Tensor, cfg: config.Config) -> Readout:
    """Clusters all features (n, f) -> what assigns any; the last step of every training."""
    began, (whitening, seen) = time.perf_counter(), points(found, cfg.model)
    generator = torch.Generator().manual_seed(cfg.training.seed)
    if cfg.model.clustering == "pic":
        centroids = means(seen, find_pic(seen, cfg.model))
    else:
        centroids = cluster.kmeans(
            seen,
            cfg.model.n_clusters,
            n_iterations=max(N_ITERATIONS, cfg.training.kmeans_iterations),
            generator=generator,
            n_starts=cfg.training.n_init,
        ).centroids
    groups = torch.arange(len(centroids), device=centroids.device)
    n_groups = cfg.model.n_groups
    if n_groups and n_groups < len(centroids):
        nearest = torch.cat([cluster.nearest(p, centroids)[1] for p in seen.split(views.BATCH)])
        sizes = torch.bincount(nearest.flatten(), minlength=len(centroids))
        groups = merging.merge(centroids, sizes, n_groups).to(centroids.device)
    log.info(
        "clustered %d images: %d clusters in %d groups, %.1f s",
        len(seen), len(centroids), int(groups.max()) + 1, time.perf_counter() - began,
    )  # fmt: skip
    return Readout(*whitening, centroids, groups)


def find_pic(seen: Tensor, cfg: config.Model) -> Tensor:
    """Clusters (n,) by power iteration; raises UserError for more images than it is made for."""
    if len(seen) > PIC_NEEDS:
        raise UserError(
            f"model.clustering pic finds exact neighbours among {len(seen):,} images: "
            f"expected {PIC_NEEDS:,} or fewer, take kmeans"
        )
    return pic.pic(seen, n_neighbors=cfg.n_neighbors, sigma=cfg.sigma)


def means(seen: Tensor, assignments: Tensor) -> Tensor:
    """points (n, d) of clusters (n,) without gaps -> the mean of each cluster (k, d)"""
    k = int(assignments.max()) + 1
    sums = torch.zeros(k, seen.shape[1], dtype=seen.dtype, device=seen.device)
    sums.index_add_(0, assignments, seen)
    return sums / torch.bincount(assignments, minlength=k)[:, None]


def load(path: Path, now: state.State, cfg: config.Model) -> Readout:
    """What a run saved; raises UserError for anything else, and for that of another config."""
    saved = state.read(path)
    if saved.keys() != set(Readout._fields):
        raise UserError(f"{path} is no readable checkpoint: it holds {', '.join(sorted(saved))}")
    found = Readout(**{name: tensor.to(now.device) for name, tensor in saved.items()})
    if cfg.clustering == "kmeans" and len(found.centroids) != cfg.n_clusters:
        raise UserError(
            f"{path} is of another model: it has {len(found.centroids)} clusters, the config "
            f"expects {cfg.n_clusters}"
        )
    return found


def assign(found: Tensor, readout: Readout) -> Assigned:
    """features (n, f) -> their clusters, group by group; the same for one image as for many."""
    n_groups = readout.n_groups
    parts: list[list[np.ndarray]] = [[], [], [], []]
    for batch in found.split(views.BATCH):
        seen = readout.embed(batch)
        distances, ids = cluster.nearest(seen, readout.centroids, len(readout.centroids))
        groups = readout.groups[ids]  # (b, k), nearest first
        of_group = torch.full((len(batch), n_groups), torch.inf, device=seen.device)
        of_group.scatter_reduce_(1, groups, distances, "amin")
        best, nearest = of_group.sort(dim=1, stable=True)
        m = min(N_NEAREST, n_groups)
        values = (nearest[:, :m], best[:, :m], ids[:, 0], seen)
        for part, value in zip(parts, values, strict=True):
            part.append(value.cpu().numpy())
    return Assigned(*map(np.concatenate, parts))


def spread(found: Tensor) -> float:
    """How far features (n, f) point apart: 0 where all have one direction, at most 1."""
    mean = F.normalize(found).mean(0)
    return float((1 - mean.square().sum()).clamp(min=0).sqrt())
