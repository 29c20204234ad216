"""The step without gradient: whitened features, and k-means on them."""

import importlib.util
import logging
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from common import UserError

CHUNK = 1 << 23  # numbers in a table of distances: 32 MB
MAX_EXACT = 1024  # features above which the main axes are found by iteration
N_SPARE = 32  # axes carried along by that iteration, so that those wanted are exact
MIN_VARIANCE = 1e-6  # share of the largest one below which a direction is rounding noise
MAX_SPREAD = 256  # clusters up to which the first centroids are spread out
N_CANDIDATES = 16  # points a cluster that those are chosen from, 4096 at least
MAX_ROUNDS = 10  # of filling empty clusters after the last iteration


# ---- whitening


class Whitening(NamedTuple):
    """PCA, whitening, rows of length 1 (paper, section 3.4): mean (d,), projection (d, p)."""

    mean: Tensor
    projection: Tensor

    @classmethod
    def fit(cls, points: Tensor, n_components: int = 256, power: float = -0.5) -> "Whitening":
        """Learns it from points (n, d); p is n_components, or less where they have less variance.

        Each axis is scaled by its variance to that power. Raises UserError if a point is NaN or
        infinite.
        """
        check_finite(points)
        mean = points.mean(0, dtype=torch.float64).float()
        covariance = points.new_zeros(points.shape[1], points.shape[1], dtype=torch.float32)
        for part in points.split(max(1, CHUNK // points.shape[1])):
            centred = part.float() - mean
            covariance.addmm_(centred.T, centred)
        covariance /= max(1, len(points) - 1)
        n_components = max(1, min(n_components, len(points) - 1, points.shape[1]))
        variances, axes = _main_axes(covariance, n_components)
        kept = variances > max(MIN_VARIANCE * float(variances[0]), 1e-30)
        kept[0] = True  # points that are all alike: one axis, on which they are 0
        return cls(mean, axes[:, kept] * variances[kept].clamp(min=1e-30) ** power)

    def __call__(self, points: Tensor) -> Tensor:
        """points (n, d) -> (n, p) of length 1; a point at the mean stays 0"""
        parts = points.split(max(1, CHUNK // points.shape[1]))
        return torch.cat(
            [F.normalize((part.float() - self.mean) @ self.projection) for part in parts]
        )


def _main_axes(covariance: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n largest eigenvalues (n,), falling, and their eigenvectors (d, n)."""
    d = len(covariance)
    basis = None
    if d > MAX_EXACT and n + N_SPARE < d:
        # all 4096 axes would take ten times as long as the 256 that are wanted
        basis = torch.randn(d, n + N_SPARE, generator=torch.Generator().manual_seed(0))
        basis = torch.linalg.qr(basis.to(covariance)).Q
        for _ in range(8):
            basis = torch.linalg.qr(covariance @ basis).Q
        covariance = basis.T @ covariance @ basis  # in whose axes the points are uncorrelated
    values, vectors = torch.linalg.eigh(covariance.double())
    values, vectors = values.flip(0)[:n].float(), vectors.flip(1)[:, :n].float()
    return values, vectors if basis is None else basis @ vectors


def check_finite(points: Tensor) -> None:
    """Raises UserError if a row of points (n, d) has NaN or infinity in it."""
    bad = (~points.sum(1, dtype=torch.float32).isfinite()).nonzero()
    if len(bad):
        raise UserError(
            f"the features of {len(bad)} of {len(points)} images are NaN or infinite, the first "
            f"of number {int(bad[0])}: lower training.lr"
        )


# ---- k-means


class Clusters(NamedTuple):
    """centroids (k, d); of each point its nearest one (n,) and the squared distance to it (n,)."""

    centroids: Tensor
    assignments: Tensor
    distances: Tensor
    n_iterations: int
    n_reseeded: int  # centroids of empty clusters that were moved

    @property
    def objective(self) -> float:
        """The sum of the squared distances."""
        return float(self.distances.sum(dtype=torch.float64))


def kmeans(
    points: Tensor,
    n_clusters: int,
    *,
    n_iterations: int = 20,
    generator: Generator | None = None,
    centroids: Tensor | None = None,
    spherical: bool = False,
    n_starts: int = 1,
    backend: Literal["auto", "faiss", "torch"] = "auto",
) -> Clusters:
    """k-means of points (n, d) on their device; no cluster stays empty if k points differ.

    centroids (k, d): where to start, so that cluster ids keep their meaning; else k of the points,
    spread out where k is small.
    spherical: centroids have length 1; the points should have, too. n_starts: the best of so many.
    generator: on the CPU. backend auto: faiss on the CPU where it is installed.
    Raises UserError for fewer points than clusters, and for NaN.
    """
    if not 1 <= n_clusters <= len(points):
        raise UserError(f"{n_clusters} clusters were asked for, of {len(points)} images")
    if centroids is not None and centroids.shape != (n_clusters, points.shape[1]):
        raise ValueError(f"centroids {tuple(centroids.shape)} for {n_clusters} clusters")
    check_finite(points)
    points = points.float()
    generator = generator or torch.Generator().manual_seed(0)
    if backend == "auto":
        found = points.device.type == "cpu" and importlib.util.find_spec("faiss")
        backend = "faiss" if found else "torch"
    best = None
    for _ in range(1 if centroids is not None else n_starts):
        start = _choose(points, n_clusters, generator) if centroids is None else centroids
        start = start.to(points, copy=True)
        start = F.normalize(start) if spherical else start
        iterate = _iterate_with_faiss if backend == "faiss" else _iterate
        found = _finish(
            points, *iterate(points, start, n_iterations, spherical, generator), generator
        )
        if best is None or found.objective < best.objective:
            best = found
    return best


def _choose(points: Tensor, n_clusters: int, generator: Generator) -> Tensor:
    """Points (k, d) to start from: at random, or for few clusters by k-means++.

    There each is drawn with a chance that grows with its squared distance to those drawn before.
    """
    order = torch.randperm(len(points), generator=generator).to(points.device)
    if n_clusters > MAX_SPREAD:
        return points[order[:n_clusters]]
    candidates = points[order[: max(4096, N_CANDIDATES * n_clusters)]]
    squares, chosen = candidates.square().sum(1), [0]
    distances = torch.full_like(squares, torch.inf)
    for draw in torch.rand(n_clusters - 1, generator=generator, dtype=torch.float64):
        last = candidates[chosen[-1]]
        distances = distances.minimum(squares - 2 * candidates @ last + last.square().sum())
        distances = distances.clamp_(min=0)
        distances[chosen[-1]] = 0
        ends = distances.cumsum(0, dtype=torch.float64)
        chosen.append(min(int(torch.searchsorted(ends, draw.to(ends) * ends[-1])), len(ends) - 1))
    return candidates[chosen]


def _iterate(
    points: Tensor, centroids: Tensor, n_iterations: int, spherical: bool, generator: Generator
) -> tuple[Tensor, int, int]:
    """Centroids after that many iterations of Lloyd's, how many there were, how many reseeded."""
    before, n_reseeded = None, 0
    for i in range(n_iterations):
        assignments = _assign(points, centroids)
        if before is not None and torch.equal(assignments, before):
            return centroids, i, n_reseeded  # every further iteration would do the same
        before = assignments
        counts = torch.bincount(assignments, minlength=len(centroids))
        sums = torch.zeros_like(centroids).index_add_(0, assignments, points)
        means = F.normalize(sums) if spherical else sums / counts.clamp(min=1)[:, None]
        centroids = torch.where(counts[:, None] > 0, means, centroids)
        n_reseeded += _reseed(points, centroids, assignments, counts, generator)
    return centroids, n_iterations, n_reseeded


def _iterate_with_faiss(
    points: Tensor, centroids: Tensor, n_iterations: int, spherical: bool, generator: Generator
) -> tuple[Tensor, int, int]:
    """As `_iterate`; faiss splits the clusters that it finds empty."""
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells of each build that it tries
    import faiss

    if n_iterations == 0:
        return centroids, 0, 0
    faiss.omp_set_num_threads(torch.get_num_threads())
    method = faiss.Kmeans(
        points.shape[1],
        len(centroids),
        niter=n_iterations,
        spherical=spherical,
        seed=int(torch.randint(1 << 30, (), generator=generator)),
        min_points_per_centroid=1,  # else it warns below 39
        max_points_per_centroid=len(points),  # else it leaves points out above 256
    )
    method.train(points.contiguous().numpy(), init_centroids=centroids.contiguous().numpy())
    n_split = sum(step["nsplit"] for step in method.iteration_stats)
    return torch.from_numpy(method.centroids.copy()), n_iterations, n_split


def _finish(
    points: Tensor, centroids: Tensor, n_iterations: int, n_reseeded: int, generator: Generator
) -> Clusters:
    """Every point to its nearest centroid, after which no cluster is empty."""
    for _ in range(MAX_ROUNDS):
        assignments = _assign(points, centroids)
        counts = torch.bincount(assignments, minlength=len(centroids))
        n_moved = _reseed(points, centroids, assignments, counts, generator)
        n_reseeded += n_moved
        if n_moved == 0:
            break
    else:
        assignments = _assign(points, centroids)
    distances = _distances(points, centroids, assignments)
    return Clusters(centroids, assignments, distances, n_iterations, n_reseeded)


def _assign(points: Tensor, centroids: Tensor) -> Tensor:
    """The nearest centroid of each point (n,): the largest x c - c^2 / 2."""
    bias, transposed = -0.5 * centroids.square().sum(1), centroids.T.contiguous()
    chunks = points.split(max(1, CHUNK // len(centroids)))
    return torch.cat([torch.addmm(bias, part, transposed).max(1).indices for part in chunks])


def _distances(points: Tensor, centroids: Tensor, assignments: Tensor) -> Tensor:
    """The squared distance (n,) of each point to its centroid.

    From the differences: the expanded square of a small distance is all rounding.
    """
    parts = zip(points.split(8192), assignments.split(8192), strict=True)
    return torch.cat([(part - centroids[ids]).square().sum(1) for part, ids in parts])


def _reseed(
    points: Tensor, centroids: Tensor, assignments: Tensor, counts: Tensor, generator: Generator
) -> int:
    """Moves, in place, the centroid of each empty cluster into the largest one; how many it moved.

    It becomes one of that cluster's points, the likelier the further away it is, and the two count
    as halves from then on. A cluster whose points are all alike cannot be split.
    """
    empty = (counts == 0).nonzero().flatten().tolist()
    if not empty:
        return 0
    spread = _distances(points, centroids, assignments).double()
    spread[spread <= 1e-10 * points.square().sum(1)] = 0  # rounding
    sizes = counts.double()
    sizes[torch.zeros_like(sizes).index_add_(0, assignments, spread) == 0] = 0
    n_moved = 0
    for cluster in empty:
        largest = int(sizes.argmax())
        members = (assignments == largest).nonzero().flatten()
        weights = spread[members].cumsum(0)
        if sizes[largest] == 0 or weights[-1] <= 0:
            break
        draw = torch.rand((), generator=generator, dtype=torch.float64).to(weights.device)
        chosen = members[torch.searchsorted(weights, draw * weights[-1], right=True)]
        centroids[cluster] = points[chosen]
        spread[chosen] = 0
        sizes[largest] /= 2
        n_moved += 1
    return n_moved


def nearest(points: Tensor, centroids: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
    """points (b, d), centroids (k, d) -> squared distances and ids (b, n) of the n nearest."""
    distances, ids = [], []
    for part, chosen in _nearest_parts(points, centroids, n):
        ids.append(chosen)
        distances.append((part[:, None] - centroids[chosen]).square().sum(2))
    if not ids:
        return points.new_zeros(0, n), torch.zeros(0, n, dtype=torch.long, device=points.device)
    return torch.cat(distances), torch.cat(ids)


def _nearest_parts(points: Tensor, centroids: Tensor, n: int) -> Iterator[tuple[Tensor, Tensor]]:
    bias, transposed = -0.5 * centroids.square().sum(1), centroids.T.contiguous()
    n_rows = max(1, CHUNK // max(len(centroids), n * centroids.shape[1]))
    for part in points.float().split(n_rows) if len(points) else ():
        scores = torch.addmm(bias, part, transposed)
        yield part, scores.max(1, True).indices if n == 1 else scores.topk(n).indices
