"""Power iteration clustering, the paper's alternative to k-means (Lin and Cohen 2010)."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from common import UserError
from common.pytorch.neighbors import faiss_finds_others, nearest_others
from deepcluster_torch.cluster.whitening import check_finite

MAX_POINTS = 100_000  # the exact neighbors of more would take hours
CHUNK = 1 << 24  # numbers per table of distances: 64 MB
GROUP = 64  # columns of it that are searched together


def pic(
    points: Tensor,
    *,
    n_neighbors: int = 5,
    sigma: float = 0.2,
    alpha: float = 0.001,
    n_iterations: int = 200,
) -> Tensor:
    """Clusters (n,) int64 of whitened points (n, d), numbered 0, 1, ... without gaps.

    Finds the number of clusters itself. Each point follows the steepest ascent of the power
    iteration's vector on a graph of nearest neighbors, like walking uphill; the points that reach
    the same mode (hilltop) are a cluster. Single points join the cluster of their nearest neighbor
    that has one. Raises UserError for NaN and for more than MAX_POINTS.
    """
    if len(points) > MAX_POINTS:
        raise UserError(
            f"model.clustering pic is for {MAX_POINTS:,} images or fewer, found {len(points):,}: "
            "use kmeans"
        )
    check_finite(points)
    n_neighbors = min(n_neighbors, len(points) - 1)
    if n_neighbors < 1:
        return torch.zeros(len(points), dtype=torch.long, device=points.device)
    distances, ids = neighbors(points, n_neighbors)
    distances, ids = distances.double().cpu().numpy(), ids.cpu().numpy()
    graph = _graph(distances, ids, sigma)
    modes = _follow_gradient(graph, _power_iteration(graph, alpha, n_iterations))
    modes = _join_singletons(modes, ids)
    clusters = np.unique(modes, return_inverse=True)[1]
    return torch.from_numpy(clusters.astype(np.int64)).to(points.device)


def neighbors(points: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Squared distances and ids (b, n) of each point's n nearest others, exact, nearest first.

    A point is never its own neighbor, though a duplicate of it can be. The authors drop the first
    column of the search, so with duplicates a point can be its own neighbor.
    """
    points = points.float()
    find = nearest_others if faiss_finds_others(points, n) else _nearest_others
    distances, ids = [], []
    n_rows = max(1, CHUNK // (n * points.shape[1]))
    nearest = find(points, min(n + 1, len(points) - 1))  # rounding can swap the last two
    for part, others in zip(points.split(n_rows), nearest.split(n_rows), strict=True):
        exact = (part[:, None] - points[others]).square().sum(2)
        exact, order = exact.sort(dim=1, stable=True)
        distances.append(exact[:, :n])
        ids.append(others.gather(1, order)[:, :n])
    return torch.cat(distances), torch.cat(ids)


def _nearest_others(points: Tensor, n: int) -> Tensor:
    """Indices (b, n) of each point's n nearest others, in any order."""
    n_padded = -(-len(points) // GROUP) * GROUP
    bias = points.new_full((n_padded,), -torch.inf)
    bias[: len(points)] = -0.5 * points.square().sum(1)
    transposed = points.new_zeros(points.shape[1], n_padded)
    transposed[:, : len(points)] = points.T
    ids = []
    numbers = torch.arange(len(points), device=points.device)
    for part in numbers.split(max(1, CHUNK // n_padded)):
        scores = torch.addmm(bias, points[part], transposed)
        scores[numbers[: len(part)], part] = -torch.inf
        ids.append(_top(scores, n))
    return torch.cat(ids)


def _top(scores: Tensor, n: int) -> Tensor:
    """Columns (b, n) of the n largest scores of each row, in any order.

    They are in the n groups of columns with the largest maxima, which one pass over the table
    finds; `topk` of the table takes ten times as long. The columns of a group are far apart in
    memory, so the maximum is taken over long contiguous rows.
    """
    groups = scores.view(len(scores), GROUP, -1)
    n_groups = groups.shape[2]
    best = groups.amax(1).topk(min(n, n_groups)).indices  # (b, n)
    columns = (best[:, :, None] + n_groups * torch.arange(GROUP, device=best.device)).flatten(1)
    return columns.gather(1, scores.gather(1, columns).topk(n).indices)


def _graph(distances: np.ndarray, ids: np.ndarray, sigma: float) -> sparse.csr_array:
    """Symmetric weights (n, n): exp(-d^2 / sigma^2), twice that between mutual neighbors."""
    n, k = ids.shape
    weights = np.exp(-distances / sigma**2).ravel()
    directed = sparse.csr_array((weights, ids.ravel(), k * np.arange(n + 1)), shape=(n, n))
    both = (directed + directed.T).tocsr()
    both.sort_indices()
    return both


def _power_iteration(graph: sparse.csr_array, alpha: float, n_iterations: int) -> np.ndarray:
    """Iterates v <- alpha W v + (1 - alpha) / n, normalized to sum 1 -> W v (n,) of the last v.

    W v orders the points like the next v, which for a small alpha is constant up to rounding.
    """
    n = graph.shape[0]
    values = np.full(n, 1 / n)
    product = graph @ values
    for _ in range(n_iterations - 1):
        values = alpha * product + (1 - alpha) / n
        product = graph @ (values / values.sum())
    return product


def _follow_gradient(graph: sparse.csr_array, heights: np.ndarray) -> np.ndarray:
    """The mode (n,) that each point reaches along its steepest edges."""
    n = graph.shape[0]
    rows = np.repeat(np.arange(n), np.diff(graph.indptr))
    slopes = graph.data * (heights[graph.indices] - heights[rows])
    rising = slopes > 0
    rows, columns, slopes = rows[rising], graph.indices[rising], slopes[rising]
    order = np.lexsort((-columns, slopes, rows))  # of equal slopes the lowest number comes last
    targets = np.arange(n)
    targets[rows[order]] = columns[order]  # the last assignment wins
    # Pointer jumping. Heights increase along every edge, so there are no cycles.
    while not np.array_equal(further := targets[targets], targets):
        targets = further
    return targets


def _join_singletons(modes: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Moves points that are alone at their mode to that of their nearest neighbor that is not."""
    alone = np.bincount(modes, minlength=len(modes))[modes] == 1
    candidates = ~alone[ids]  # (n, k), nearest first
    first = candidates.argmax(1)
    rows = np.flatnonzero(alone & candidates.any(1))
    modes = modes.copy()
    modes[rows] = modes[ids[rows, first[rows]]]
    return modes
