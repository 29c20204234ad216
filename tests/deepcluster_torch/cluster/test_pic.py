import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common import UserError, metrics
from deepcluster_torch import cluster, pic


def slow(points, n_neighbors, sigma, alpha, n_iterations):
    """The method in plain loops, in double-double: longdouble."""
    n = len(points)
    near = []
    for i in range(n):
        distances = ((points - points[i]) ** 2).sum(1)
        near.append(sorted((d, j) for j, d in enumerate(distances) if j != i)[:n_neighbors])
    weights = np.zeros((n, n), np.longdouble)
    for i in range(n):
        for distance, j in near[i]:
            weights[i, j] += np.exp(-np.longdouble(distance) / sigma**2)
            weights[j, i] += np.exp(-np.longdouble(distance) / sigma**2)
    values = np.full(n, np.longdouble(1) / n)
    for _ in range(n_iterations):
        values = alpha * (weights @ values) + (1 - np.longdouble(alpha)) / n
        values /= values.sum()
    summits = []
    for i in range(n):
        while True:
            slopes = weights[i] * (values - values[i])
            if slopes.max() <= 0:
                break
            i = int(slopes.argmax())
        summits.append(i)
    joined = list(summits)
    for i in range(n):
        if summits.count(summits[i]) == 1:
            others = [j for _, j in near[i] if summits.count(summits[j]) > 1]
            joined[i] = summits[others[0]] if others else summits[i]
    return np.unique(joined, return_inverse=True)[1]


def points_of(n, d=4, n_blobs=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n_blobs, d, generator=generator)
    return F.normalize(
        centres[torch.randint(n_blobs, (n,), generator=generator)]
        + 0.2 * torch.randn(n, d, generator=generator)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("alpha", "n_iterations"), [(0.001, 200), (0.3, 5)])
def test_it_equals_a_slow_reference(seed, alpha, n_iterations):
    points = points_of(200, seed=seed)
    found = pic.pic(points, alpha=alpha, n_iterations=n_iterations)
    expected = slow(points.double().numpy(), 5, 0.2, alpha, n_iterations)
    assert metrics.clustering_accuracy(expected, found.numpy()) == 1
    assert 2 < len(found.unique()) < 100


def test_it_equals_the_reference_where_points_are_copies():
    points = points_of(100).repeat(2, 1)  # five neighbours are its copy and two pairs: no ties
    found = pic.pic(points)
    expected = slow(points.double().numpy(), 5, 0.2, 0.001, 200)
    assert metrics.clustering_accuracy(expected, found.numpy()) == 1
    assert torch.equal(found[:100], found[100:])


def test_far_apart_blobs_never_share_a_cluster():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat_interleave(60)
    points = 10 * torch.eye(8)[labels] + 0.05 * torch.randn(300, 8, generator=generator)
    found = pic.pic(points)
    assert metrics.purity(labels.numpy(), found.numpy()) == 1


def test_clusters_are_numbered_without_gaps_and_none_is_left_alone():
    found = pic.pic(points_of(500, d=16))
    counts = torch.bincount(found)
    assert counts.min() >= 2 and found.dtype == torch.long


def test_neighbours_are_exact_and_never_the_point_itself(monkeypatch):
    points = points_of(100)
    points[50:] = points[:50]
    monkeypatch.setattr(pic, "CHUNK", 700)  # seven rows at a time
    distances, ids = pic.neighbors(points, 4)
    assert (ids != torch.arange(100)[:, None]).all()
    assert (distances[:, 0] == 0).all() and torch.equal(ids[:50, 0], torch.arange(50, 100))
    table = torch.cdist(points.double(), points.double()).square().fill_diagonal_(torch.inf)
    expected = table.sort(1).values[:, :4]
    torch.testing.assert_close(distances, expected.float(), atol=1e-6, rtol=1e-4)


def test_the_quick_search_for_the_largest_is_topk_s():
    scores = torch.randn(50, 20 * pic.GROUP, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pic._top(scores, 25).sort().values, scores.topk(25).indices.sort().values)


def test_a_point_is_a_cluster_and_two_are_as_high_as_each_other():
    points = torch.tensor([[0.0], [0.1], [0.3]])
    assert [pic.pic(points[:n]).tolist() for n in (1, 2, 3)] == [[0], [0, 1], [0, 0, 0]]


def test_points_that_are_all_alike_are_no_error_and_nan_is_refused():
    points = torch.ones(30, 3)
    assert len(pic.pic(points)) == 30
    points[7] = torch.nan
    with pytest.raises(UserError, match="number 7"):
        pic.pic(points)


def test_it_runs_on_what_the_whitening_gives():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(300, 40, generator=generator)
    whitened = cluster.Whitening.fit(points, 16)(points)
    assert len(pic.pic(whitened).unique()) > 1
