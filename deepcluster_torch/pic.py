"""Power iteration clustering, the paper's other way to find clusters (Lin and Cohen 2010)."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from deepcluster_torch.cluster import check_finite

CHUNK = 1 << 24  # numbers in a table of distances: 64 MB
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

    How many there are is found, not set: the points climb a graph of nearest neighbours, each to
    the one that the power iteration leaves highest above it, and a cluster is what ends on the same
    summit. One that is alone joins its nearest neighbour that is not. Raises UserError for NaN.
    """
    check_finite(points)
    n_neighbors = min(n_neighbors, len(points) - 1)
    if n_neighbors < 1:
        return torch.zeros(len(points), dtype=torch.long, device=points.device)
    distances, ids = neighbors(points, n_neighbors)
    distances, ids = distances.double().cpu().numpy(), ids.cpu().numpy()
    graph = _graph(distances, ids, sigma)
    summits = _climb(graph, _heights(graph, alpha, n_iterations))
    summits = _join_singletons(summits, ids)
    clusters = np.unique(summits, return_inverse=True)[1]
    return torch.from_numpy(clusters.astype(np.int64)).to(points.device)


def neighbors(points: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Squared distances and ids (b, n) of each point's n nearest others, exact, nearest first.

    A point is never its own neighbour, and a copy of it may be one. The authors drop the first
    column of a search, which with copies leaves points among their own neighbours.
    """
    points = points.float()
    n_padded = -(-len(points) // GROUP) * GROUP
    halves = points.new_full((n_padded,), -torch.inf)
    halves[: len(points)] = -0.5 * points.square().sum(1)
    transposed = points.new_zeros(points.shape[1], n_padded)
    transposed[:, : len(points)] = points.T
    distances, ids = [], []
    everyone = torch.arange(len(points), device=points.device)
    for part in everyone.split(max(1, CHUNK // n_padded)):
        scores = torch.addmm(halves, points[part], transposed)
        scores[everyone[: len(part)], part] = -torch.inf
        found = _top(scores, n)
        exact = (points[part][:, None] - points[found]).square().sum(2)
        exact, order = exact.sort(dim=1, stable=True)
        distances.append(exact)
        ids.append(found.gather(1, order))
    return torch.cat(distances), torch.cat(ids)


def _top(scores: Tensor, n: int) -> Tensor:
    """Where the n largest of each row are (b, n), in any order.

    They lie in the n groups of columns with the largest maxima, and to find those the table is
    read once; sorting it takes ten times as long. The columns of a group are far apart in memory,
    so that the maximum is taken of whole rows at a time.
    """
    groups = scores.view(len(scores), GROUP, -1)
    n_groups = groups.shape[2]
    best = groups.amax(1).topk(min(n, n_groups)).indices  # (b, n)
    columns = (best[:, :, None] + n_groups * torch.arange(GROUP, device=best.device)).flatten(1)
    return columns.gather(1, scores.gather(1, columns).topk(n).indices)


def _graph(distances: np.ndarray, ids: np.ndarray, sigma: float) -> sparse.csr_array:
    """Symmetric weights (n, n): exp(-d^2 / sigma^2), twice that between mutual neighbours."""
    n, k = ids.shape
    weights = np.exp(-distances / sigma**2).ravel()
    directed = sparse.csr_array((weights, ids.ravel(), k * np.arange(n + 1)), shape=(n, n))
    both = (directed + directed.T).tocsr()
    both.sort_indices()
    return both


def _heights(graph: sparse.csr_array, alpha: float, n_iterations: int) -> np.ndarray:
    """What the iteration v <- alpha W v + (1 - alpha) / n, made to sum to 1, leaves (n,).

    Given is W v of the last step but one: v itself is the same for all points to within rounding,
    as alpha is small, but of two points the higher one in W v is the higher one in v.
    """
    n = graph.shape[0]
    values = np.full(n, 1 / n)
    heights = graph @ values
    for _ in range(n_iterations - 1):
        values = alpha * heights + (1 - alpha) / n
        heights = graph @ (values / values.sum())
    return heights


def _climb(graph: sparse.csr_array, heights: np.ndarray) -> np.ndarray:
    """The summit (n,) that each point reaches along the steepest of its edges."""
    n = graph.shape[0]
    rows = np.repeat(np.arange(n), np.diff(graph.indptr))
    slopes = graph.data * (heights[graph.indices] - heights[rows])
    above = slopes > 0
    rows, columns, slopes = rows[above], graph.indices[above], slopes[above]
    order = np.lexsort((-columns, slopes, rows))  # of equal slopes the lowest number comes last
    goals = np.arange(n)
    goals[rows[order]] = columns[order]  # the last one written stays
    while not np.array_equal(further := goals[goals], goals):  # every step leads up: no circles
        goals = further
    return goals


def _join_singletons(summits: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Points alone on their summit go to that of their nearest neighbour that is not alone."""
    alone = np.bincount(summits, minlength=len(summits))[summits] == 1
    candidates = ~alone[ids]  # (n, k), nearest first
    first = candidates.argmax(1)
    joins = alone & candidates.any(1)
    rows = np.flatnonzero(joins)
    summits = summits.copy()
    summits[rows] = summits[ids[rows, first[rows]]]
    return summits
