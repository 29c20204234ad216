import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common import UserError, metrics
from deepcluster_torch import cluster, merging


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(n_clusters, n_each, d=8, spread=0.1, seed=0):
    """Points (n_clusters * n_each, d) around far apart centres, and the blob of each."""
    centres = 5 * torch.randn(n_clusters, d, generator=generator(seed))
    labels = torch.arange(n_clusters).repeat_interleave(n_each)
    return centres[labels] + spread * torch.randn(
        len(labels), d, generator=generator(seed + 1)
    ), labels


def correlated(n, d, seed=0):
    """Points whose directions differ in variance by a factor of 100, away from the origin."""
    mixing = torch.randn(d, d, generator=generator(seed)) * torch.logspace(0, -1, d)
    return torch.randn(n, d, generator=generator(seed + 1)) @ mixing + 3


# ---- whitening


@pytest.mark.parametrize(("n", "d", "p"), [(500, 20, 20), (500, 20, 7), (3000, 1500, 16)])
def test_whitened_points_are_uncorrelated_with_variance_1(n, d, p):
    points = correlated(n, d)
    mean, projection = cluster.Whitening.fit(points, p)
    assert projection.shape == (d, p)
    covariance = torch.cov(((points - mean) @ projection).T)
    torch.testing.assert_close(covariance, torch.eye(p), atol=2e-3, rtol=0)  # float32


def test_the_axes_kept_are_those_of_most_variance_however_they_are_found():
    points = correlated(1600, 1200)  # above MAX_EXACT: found by iteration
    whitening = cluster.Whitening.fit(points, 8, power=0)
    found = torch.linalg.vector_norm((points - points.mean(0)) @ whitening.projection).square()
    best = torch.linalg.svdvals((points - points.mean(0)).double())[:8].square().sum()
    assert 0.999 * best < found < 1.001 * best


def test_without_power_distances_are_kept_but_for_length():
    points = correlated(50, 6)
    mean, projection = cluster.Whitening.fit(points, 6, power=0)
    rotated = (points - mean) @ projection
    torch.testing.assert_close(torch.pdist(rotated), torch.pdist(points), rtol=1e-4, atol=1e-4)


def test_rows_have_length_1_and_the_mean_is_0():
    points = correlated(100, 10)
    whitening = cluster.Whitening.fit(points, 5)
    torch.testing.assert_close(whitening(points).norm(dim=1), torch.ones(100))
    assert (whitening(whitening.mean[None]) == 0).all()


@pytest.mark.parametrize(("n", "d"), [(5, 300), (2, 3), (40, 2000)])
def test_fewer_points_than_components_give_one_component_less_than_points(n, d):
    points = torch.randn(n, d, generator=generator())
    whitening = cluster.Whitening.fit(points, 256)
    assert whitening.projection.shape == (d, n - 1)
    assert whitening(points).isfinite().all()


def test_directions_without_variance_are_left_out():
    points = torch.randn(200, 6, generator=generator())
    points[:, 2], points[:, 4] = 7, points[:, 0]  # a constant and a copy
    assert cluster.Whitening.fit(points, 6).projection.shape == (6, 4)


def test_points_that_are_all_alike_become_0_never_nan():
    points = torch.full((20, 5), 0.3)
    assert (cluster.Whitening.fit(points)(points) == 0).all()


def test_nan_in_the_features_is_refused_with_the_image():
    points = torch.zeros(10, 3)
    points[4, 1] = torch.nan
    for step in (cluster.Whitening.fit, lambda points: cluster.kmeans(points, 2)):
        with pytest.raises(UserError, match="features of 1 of 10 images are NaN.*number 4"):
            step(points)


# ---- k-means


def lloyd(points, centroids, n_iterations):
    """k-means in plain loops."""
    for _ in range(n_iterations):
        near = [((centroids - p) ** 2).sum(1).argmin() for p in points]
        for k in range(len(centroids)):
            members = [p for p, j in zip(points, near, strict=True) if j == k]
            centroids[k] = np.mean(members, axis=0) if members else centroids[k]
    return centroids, np.array([((centroids - p) ** 2).sum(1).argmin() for p in points])


def test_iterations_are_lloyd_s():
    points = torch.randn(120, 5, generator=generator())
    start = points[:6]
    expected, ids = lloyd(points.double().numpy(), start.double().numpy(), 4)
    found = cluster.kmeans(points, 6, n_iterations=4, centroids=start, backend="torch")
    np.testing.assert_allclose(found.centroids, expected, atol=1e-5)
    assert np.array_equal(found.assignments, ids) and found.n_iterations == 4


def test_blobs_are_found_whatever_the_chunk(monkeypatch):
    points, labels = blobs(5, 40)
    finished_run = cluster.kmeans(points, 5, generator=generator(1), n_starts=5, backend="torch")
    assert metrics.clustering_accuracy(labels.numpy(), finished_run.assignments.numpy()) == 1
    monkeypatch.setattr(cluster, "CHUNK", 35)
    parts = cluster.kmeans(points, 5, generator=generator(1), n_starts=5, backend="torch")
    assert torch.equal(parts.assignments, finished_run.assignments)


def test_no_point_has_a_nearer_centroid_and_distances_are_exact():
    points = torch.randn(300, 4, generator=generator()) + 100  # far from the origin
    found = cluster.kmeans(points, 9, backend="torch")
    distances = (points[:, None].double() - found.centroids.double()).square().sum(2)
    best = distances.min(1)
    assert (best.indices == found.assignments).float().mean() > 0.97  # ties of float32
    taken = distances[torch.arange(300), found.assignments]
    np.testing.assert_allclose(found.distances, taken, rtol=1e-4)
    assert found.objective == pytest.approx(float(taken.sum()), rel=1e-5)


@pytest.mark.parametrize("spherical", [False, True])
def test_no_cluster_is_empty_even_if_all_start_at_one_place(spherical):
    points = F.normalize(torch.randn(60, 4, generator=generator()))
    start = points[:1].repeat(20, 1)
    for n_iterations in (0, 1, 10):
        found = cluster.kmeans(
            points, 20, n_iterations=n_iterations, centroids=start, spherical=spherical
        )
        assert torch.bincount(found.assignments, minlength=20).min() >= 1
        assert found.n_reseeded > 0


def test_an_empty_cluster_is_moved_into_the_largest_one():
    points = torch.cat([torch.randn(90, 2, generator=generator()), torch.full((10, 2), 50.0)])
    start = torch.tensor([[0.0, 0.0], [50.0, 50.0], [1000.0, 1000.0]])
    found = cluster.kmeans(points, 3, centroids=start, backend="torch")
    assert torch.bincount(found.assignments)[1] == 10  # the small one is whole
    assert (found.assignments[:90] == 2).any() and (found.assignments[90:] == 1).all()


def test_as_many_clusters_as_points_and_fewer_different_points_than_clusters():
    points = torch.randn(12, 3, generator=generator())
    assert sorted(cluster.kmeans(points, 12).assignments.tolist()) == list(range(12))
    alike = torch.tensor([[0.0], [1.0]]).repeat(10, 1)
    found = cluster.kmeans(alike, 5, backend="torch")
    assert len(found.assignments.unique()) == 2 and found.objective < 1e-9


def test_cluster_ids_keep_their_meaning_from_given_centroids():
    points, labels = blobs(6, 30)
    first = cluster.kmeans(points, 6, n_starts=5)
    shaken = points + 0.05 * torch.randn(points.shape, generator=generator(3))
    again = cluster.kmeans(shaken, 6, centroids=first.centroids)
    assert torch.equal(first.assignments, again.assignments)


def test_spherical_centroids_have_length_1():
    points = F.normalize(torch.randn(200, 6, generator=generator()))
    found = cluster.kmeans(points, 7, spherical=True)
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(7))
    cosines = points @ found.centroids.T
    assert (cosines.argmax(1) == found.assignments).float().mean() > 0.99


def test_it_depends_on_the_generator_alone_and_leaves_the_points_alone():
    points = torch.randn(200, 6, generator=generator())
    before = points.clone()
    first = cluster.kmeans(points, 9, generator=generator(4))
    torch.rand(5)
    again = cluster.kmeans(points, 9, generator=generator(4))
    assert torch.equal(first.centroids, again.centroids) and torch.equal(points, before)
    other = cluster.kmeans(points, 9, generator=generator(5))
    assert not torch.equal(first.centroids, other.centroids)


def test_more_starts_are_never_worse():
    points = torch.randn(300, 3, generator=generator())
    one = cluster.kmeans(points, 12, generator=generator(1))
    assert cluster.kmeans(points, 12, generator=generator(1), n_starts=6).objective <= one.objective


def test_few_clusters_start_in_blobs_of_their_own():
    points, labels = blobs(8, 50, spread=0.01)
    for seed in range(5):
        found = cluster.kmeans(points, 8, n_iterations=0, generator=generator(seed))
        assert metrics.clustering_accuracy(labels.numpy(), found.assignments.numpy()) == 1


@pytest.mark.parametrize("n_clusters", [0, 6])
def test_more_clusters_than_points_are_refused(n_clusters):
    with pytest.raises(UserError, match=f"{n_clusters} clusters were asked for, of 5 images"):
        cluster.kmeans(torch.zeros(5, 2), n_clusters)


@pytest.mark.parametrize("spherical", [False, True])
def test_the_objective_is_that_of_faiss_within_1_percent(spherical):
    pytest.importorskip("faiss")
    points = F.normalize(torch.randn(4000, 32, generator=generator()))
    ours, theirs = (
        cluster.kmeans(
            points, 50, generator=generator(), spherical=spherical, backend=backend
        ).objective
        for backend in ("torch", "faiss")
    )
    assert ours == pytest.approx(theirs, rel=0.01)


def test_the_nearest_come_in_order_with_their_distances():
    centroids = torch.tensor([[0.0], [10.0], [4.0]])
    distances, ids = cluster.nearest(torch.tensor([[1.0], [8.0]]), centroids, 3)
    assert ids.tolist() == [[0, 2, 1], [1, 2, 0]]
    assert distances.tolist() == [[1, 9, 81], [4, 16, 64]]
    assert cluster.nearest(torch.zeros(0, 1), centroids, 2)[1].shape == (0, 2)


# ---- groups


def cheapest_joins(centres, sizes, n_groups):
    """Ward's method with all pairs looked at in every step."""
    groups = [[i] for i in range(len(centres))]

    def cost(pair):
        (a, p), (b, q) = [
            (sum(sizes[i] for i in g), sum(sizes[i] * centres[i] for i in g))
            for g in (groups[pair[0]], groups[pair[1]])
        ]
        return a * b / (a + b) * ((p / a - q / b) ** 2).sum()

    while len(groups) > n_groups:
        i, j = min(itertools.combinations(range(len(groups)), 2), key=cost)
        groups[i] += groups.pop(j)
    found = np.empty(len(centres), int)
    for number, members in enumerate(sorted(groups, key=min)):
        found[members] = number
    return found


@pytest.mark.parametrize("n_groups", [1, 2, 5, 24, 25])
def test_groups_are_those_of_the_cheapest_joins(n_groups):
    random = np.random.default_rng(0)
    centres, sizes = random.normal(size=(25, 3)), random.integers(1, 50, 25)
    found = merging.merge(torch.from_numpy(centres), torch.from_numpy(sizes), n_groups)
    assert found.tolist() == cheapest_joins(centres, sizes, n_groups).tolist()


def test_over_clustered_blobs_are_put_together_again():
    points, labels = blobs(4, 100)
    fine = cluster.kmeans(points, 20, n_starts=3)
    groups = merging.merge(fine.centroids, torch.bincount(fine.assignments), 4)
    found = groups[fine.assignments].numpy()
    assert metrics.clustering_accuracy(labels.numpy(), found) == 1


def test_an_empty_cluster_joins_the_group_at_its_place():
    centres = torch.tensor([[0.0], [100.0], [101.0], [1.0]])
    assert merging.merge(centres, torch.tensor([50, 50, 0, 0]), 2).tolist() == [0, 1, 1, 0]


def test_more_groups_than_clusters_are_refused():
    with pytest.raises(UserError, match="4 groups were asked for, of 3 clusters"):
        merging.merge(torch.zeros(3, 2), torch.ones(3), 4)
