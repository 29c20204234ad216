import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common import UserError, metrics
from deepcluster_torch.cluster import pic as pic_module
from deepcluster_torch.cluster.pic import neighbors, pic
from deepcluster_torch.cluster.whitening import Whitening


def slow(points, n_neighbors, sigma, alpha, n_iterations):
    """The algorithm in plain loops, in extended precision."""
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
    modes = []
    for i in range(n):
        while True:
            slopes = weights[i] * (values - values[i])
            if slopes.max() <= 0:
                break
            i = int(slopes.argmax())
        modes.append(i)
    joined = list(modes)
    for i in range(n):
        if modes.count(modes[i]) == 1:
            others = [j for _, j in near[i] if modes.count(modes[j]) > 1]
            joined[i] = modes[others[0]] if others else modes[i]
    return np.unique(joined, return_inverse=True)[1]


def points_of(n, d=4, n_blobs=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(n_blobs, d, generator=generator)
    return F.normalize(
        centers[torch.randint(n_blobs, (n,), generator=generator)]
        + 0.2 * torch.randn(n, d, generator=generator)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("alpha", "n_iterations"), [(0.001, 200), (0.3, 5)])
def test_clusters_equal_a_slow_reference(seed, alpha, n_iterations):
    points = points_of(200, seed=seed)
    clusters = pic(points, alpha=alpha, n_iterations=n_iterations)
    expected = slow(points.double().numpy(), 5, 0.2, alpha, n_iterations)
    assert metrics.clustering_accuracy(expected, clusters.numpy()) == 1
    assert 2 < len(clusters.unique()) < 100


def test_duplicates_equal_a_slow_reference():
    points = points_of(100).repeat(2, 1)  # five neighbors are its duplicate and two pairs: no ties
    clusters = pic(points)
    expected = slow(points.double().numpy(), 5, 0.2, 0.001, 200)
    assert metrics.clustering_accuracy(expected, clusters.numpy()) == 1
    assert torch.equal(clusters[:100], clusters[100:])


def test_distant_blobs_share_no_cluster():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat_interleave(60)
    points = 10 * torch.eye(8)[labels] + 0.05 * torch.randn(300, 8, generator=generator)
    clusters = pic(points)
    assert metrics.purity(labels.numpy(), clusters.numpy()) == 1


def test_clusters_are_numbered_without_gaps_and_have_two_points():
    clusters = pic(points_of(500, d=16))
    counts = torch.bincount(clusters)
    assert counts.min() >= 2 and clusters.dtype == torch.long


def test_neighbors_are_exact_and_exclude_the_point(monkeypatch):
    points = points_of(100)
    points[50:] = points[:50]
    monkeypatch.setattr(pic_module, "CHUNK", 700)  # seven rows at a time
    distances, ids = neighbors(points, 4)
    assert (ids != torch.arange(100)[:, None]).all()
    assert (distances[:, 0] == 0).all() and torch.equal(ids[:50, 0], torch.arange(50, 100))
    table = torch.cdist(points.double(), points.double()).square().fill_diagonal_(torch.inf)
    expected = table.sort(1).values[:, :4]
    torch.testing.assert_close(distances, expected.float(), atol=1e-6, rtol=1e-4)


def test_large_sets_have_the_same_neighbors_by_faiss(monkeypatch):
    points = points_of(4096, d=64, n_blobs=40)
    assert pic_module.faiss_finds_others(points, 5)
    distances, ids = neighbors(points, 5)
    monkeypatch.setattr(pic_module, "faiss_finds_others", lambda *_: False)
    expected, expected_ids = neighbors(points, 5)
    assert torch.equal(ids, expected_ids) and torch.equal(distances, expected)


def test_top_equals_topk():
    scores = torch.randn(50, 20 * pic_module.GROUP, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        pic_module._top(scores, 25).sort().values, scores.topk(25).indices.sort().values
    )


def test_one_two_and_three_points():
    points = torch.tensor([[0.0], [0.1], [0.3]])
    assert [pic(points[:n]).tolist() for n in (1, 2, 3)] == [[0], [0, 1], [0, 0, 0]]


def test_equal_points_are_clustered_and_nan_is_refused():
    points = torch.ones(30, 3)
    assert len(pic(points)) == 30
    points[7] = torch.nan
    with pytest.raises(UserError, match="is number 7"):
        pic(points)


def test_whitened_points_have_several_clusters():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(300, 40, generator=generator)
    whitened = Whitening.fit(points, 16)(points)
    assert len(pic(whitened).unique()) > 1


def test_too_many_points_are_refused():
    with pytest.raises(UserError, match="100,000 images or fewer, found 100,001: use kmeans"):
        pic(torch.empty(100_001, 2))
