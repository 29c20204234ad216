"""k-means with restarts and without empty clusters; faiss finds the nearest centroids on CPUs."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from common import UserError
from common.pytorch import neighbors
from deepcluster_torch.cluster.whitening import check_finite

CHUNK = 1 << 23  # numbers per table of distances: 32 MB
MAX_PLUS_PLUS = 256  # clusters up to which k-means++ chooses the first centroids
N_CANDIDATES = 16  # points per cluster that k-means++ chooses from, 4096 at least
MAX_ROUNDS = 10  # of filling empty clusters after the last iteration

Assign = Callable[[Tensor, Tensor], Tensor]  # points (n, d), centroids (k, d) -> ids (n,)


class Clusters(NamedTuple):
    """Centroids (k, d), the nearest to each point (n,), and the squared distance to it (n,)."""

    centroids: Tensor
    assignments: Tensor
    distances: Tensor
    n_iterations: int
    n_reseeded: int  # moved centroids of empty clusters

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
    """k-means of points (n, d) on their device; no cluster is empty if at least k points differ.

    centroids (k, d): where to start, so that cluster ids keep their meaning; by default k of the
    points, by k-means++ for small k. spherical: centroids have length 1, as the points should.
    n_starts: runs, of which the best is kept. generator: on the CPU. backend: finds the nearest
    centroids, either with the same result up to rounding; auto: the faster one, as measured in
    `common.pytorch.neighbors`. Raises UserError for fewer points than clusters, and for NaN.
    """
    if not 1 <= n_clusters <= len(points):
        raise UserError(f"cannot find {n_clusters} clusters in {len(points)} images")
    if centroids is not None and centroids.shape != (n_clusters, points.shape[1]):
        raise ValueError(f"centroids {tuple(centroids.shape)} for {n_clusters} clusters")
    check_finite(points)
    points = points.float()
    generator = generator or torch.Generator().manual_seed(0)
    if backend == "auto":
        backend = "faiss" if neighbors.faiss_finds_nearest(points) else "torch"
    assign = _assign if backend == "torch" else _assign_with_faiss
    best = None
    for _ in range(1 if centroids is not None else n_starts):
        start = _initial(points, n_clusters, generator) if centroids is None else centroids
        start = start.to(points, copy=True)
        start = F.normalize(start) if spherical else start
        iterated = _iterate(points, start, n_iterations, spherical, generator, assign)
        clusters = _assign_all(points, *iterated, generator, assign)
        if best is None or clusters.objective < best.objective:
            best = clusters
    return best


def _initial(points: Tensor, n_clusters: int, generator: Generator) -> Tensor:
    """k of the points (k, d): random ones, or for few clusters by k-means++."""
    order = torch.randperm(len(points), generator=generator).to(points.device)
    if n_clusters > MAX_PLUS_PLUS:
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
    points: Tensor,
    centroids: Tensor,
    n_iterations: int,
    spherical: bool,
    generator: Generator,
    assign: Assign,
) -> tuple[Tensor, int, int]:
    """Lloyd's algorithm -> centroids, number of iterations, number of reseeded centroids."""
    before, n_reseeded = None, 0
    for i in range(n_iterations):
        assignments = assign(points, centroids)
        if before is not None and torch.equal(assignments, before):
            return centroids, i, n_reseeded  # converged
        before = assignments
        counts = torch.bincount(assignments, minlength=len(centroids))
        sums = torch.zeros_like(centroids).index_add_(0, assignments, points)
        means = F.normalize(sums) if spherical else sums / counts.clamp(min=1)[:, None]
        centroids = torch.where(counts[:, None] > 0, means, centroids)
        n_reseeded += _reseed(points, centroids, assignments, counts, generator)
    return centroids, n_iterations, n_reseeded


def _assign_all(
    points: Tensor,
    centroids: Tensor,
    n_iterations: int,
    n_reseeded: int,
    generator: Generator,
    assign: Assign,
) -> Clusters:
    """Assigns every point to its nearest centroid, and fills empty clusters."""
    for _ in range(MAX_ROUNDS):
        assignments = assign(points, centroids)
        counts = torch.bincount(assignments, minlength=len(centroids))
        n_moved = _reseed(points, centroids, assignments, counts, generator)
        n_reseeded += n_moved
        if n_moved == 0:
            break
    else:
        assignments = assign(points, centroids)
    distances = _distances(points, centroids, assignments)
    return Clusters(centroids, assignments, distances, n_iterations, n_reseeded)


def _assign(points: Tensor, centroids: Tensor) -> Tensor:
    """The nearest centroid of each point (n,): the one with the largest x c - c^2 / 2."""
    bias, transposed = -0.5 * centroids.square().sum(1), centroids.T.contiguous()
    chunks = points.split(max(1, CHUNK // len(centroids)))
    return torch.cat([torch.addmm(bias, part, transposed).max(1).indices for part in chunks])


def _assign_with_faiss(points: Tensor, centroids: Tensor) -> Tensor:
    return neighbors.nearest(points, centroids).flatten()


def _distances(points: Tensor, centroids: Tensor, assignments: Tensor) -> Tensor:
    """The squared distance (n,) of each point to its centroid.

    Computed from the differences: expanding the square loses small distances to rounding.
    """
    parts = zip(points.split(8192), assignments.split(8192), strict=True)
    return torch.cat([(part - centroids[ids]).square().sum(1) for part, ids in parts])


def _reseed(
    points: Tensor, centroids: Tensor, assignments: Tensor, counts: Tensor, generator: Generator
) -> int:
    """Moves the centroid of each empty cluster into the largest one, in place -> number moved.

    It becomes a point of that cluster, drawn with probability proportional to its squared distance
    from the centroid; each then counts as half of the cluster. A cluster of equal points is never
    split.
    """
    empty = (counts == 0).nonzero().flatten().tolist()
    if not empty:
        return 0
    spread = _distances(points, centroids, assignments).double()
    spread[spread <= 1e-10 * points.square().sum(1)] = 0  # rounding errors
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
    """Squared distances and ids (b, n) of the n centroids (k, d) nearest to points (b, d)."""
    bias, transposed = -0.5 * centroids.square().sum(1), centroids.T.contiguous()
    n_rows = max(1, CHUNK // max(len(centroids), n * centroids.shape[1]))
    distances = [points.new_zeros(0, n, dtype=torch.float32)]
    ids = [torch.zeros(0, n, dtype=torch.long, device=points.device)]
    for part in points.float().split(n_rows) if len(points) else ():
        scores = torch.addmm(bias, part, transposed)
        ids.append(scores.max(1, True).indices if n == 1 else scores.topk(n).indices)
        distances.append((part[:, None] - centroids[ids[-1]]).square().sum(2))
    return torch.cat(distances), torch.cat(ids)
