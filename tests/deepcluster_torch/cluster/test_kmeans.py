import faiss
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common import UserError, metrics
from deepcluster_torch.cluster import kmeans as kmeans_module
from deepcluster_torch.cluster.kmeans import kmeans, nearest


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(n_clusters, n_each, d=8, spread=0.1, seed=0):
    """Points (n_clusters * n_each, d) around distant centers, and the blob of each."""
    centers = 5 * torch.randn(n_clusters, d, generator=generator(seed))
    labels = torch.arange(n_clusters).repeat_interleave(n_each)
    noise = torch.randn(len(labels), d, generator=generator(seed + 1))
    return centers[labels] + spread * noise, labels


def lloyd(points, centroids, n_iterations):
    """k-means in plain loops -> centroids, assignments."""
    for _ in range(n_iterations):
        near = [((centroids - p) ** 2).sum(1).argmin() for p in points]
        for k in range(len(centroids)):
            members = [p for p, j in zip(points, near, strict=True) if j == k]
            centroids[k] = np.mean(members, axis=0) if members else centroids[k]
    return centroids, np.array([((centroids - p) ** 2).sum(1).argmin() for p in points])


def test_iterations_equal_lloyd():
    points = torch.randn(120, 5, generator=generator())
    start = points[:6]
    expected, ids = lloyd(points.double().numpy(), start.double().numpy(), 4)
    clusters = kmeans(points, 6, n_iterations=4, centroids=start, backend="torch")
    np.testing.assert_allclose(clusters.centroids, expected, atol=1e-5)
    assert np.array_equal(clusters.assignments, ids) and clusters.n_iterations == 4


def test_blobs_are_clusters_for_any_chunk_size(monkeypatch):
    points, labels = blobs(5, 40)
    whole = kmeans(points, 5, generator=generator(1), n_starts=5, backend="torch")
    assert metrics.clustering_accuracy(labels.numpy(), whole.assignments.numpy()) == 1
    monkeypatch.setattr(kmeans_module, "CHUNK", 35)
    chunked = kmeans(points, 5, generator=generator(1), n_starts=5, backend="torch")
    assert torch.equal(chunked.assignments, whole.assignments)


def test_assignments_are_nearest_and_distances_exact():
    points = torch.randn(300, 4, generator=generator()) + 100  # far from the origin
    clusters = kmeans(points, 9, backend="torch")
    distances = (points[:, None].double() - clusters.centroids.double()).square().sum(2)
    best = distances.min(1)
    assert (best.indices == clusters.assignments).float().mean() > 0.97  # ties of float32
    own = distances[torch.arange(300), clusters.assignments]
    np.testing.assert_allclose(clusters.distances, own, rtol=1e-4)
    assert clusters.objective == pytest.approx(float(own.sum()), rel=1e-5)


@pytest.mark.parametrize("spherical", [False, True])
def test_no_cluster_is_empty_with_equal_starting_centroids(spherical):
    points = F.normalize(torch.randn(60, 4, generator=generator()))
    start = points[:1].repeat(20, 1)
    for n_iterations in (0, 1, 10):
        clusters = kmeans(
            points, 20, n_iterations=n_iterations, centroids=start, spherical=spherical
        )
        assert torch.bincount(clusters.assignments, minlength=20).min() >= 1
        assert clusters.n_reseeded > 0


def test_empty_cluster_moves_into_the_largest():
    points = torch.cat([torch.randn(90, 2, generator=generator()), torch.full((10, 2), 50.0)])
    start = torch.tensor([[0.0, 0.0], [50.0, 50.0], [1000.0, 1000.0]])
    ids = kmeans(points, 3, centroids=start, backend="torch").assignments
    assert torch.bincount(ids)[1] == 10  # the small one is not split
    assert (ids[:90] == 2).any() and (ids[90:] == 1).all()


def test_as_many_clusters_as_points_and_fewer_distinct_points():
    points = torch.randn(12, 3, generator=generator())
    assert sorted(kmeans(points, 12).assignments.tolist()) == list(range(12))
    duplicates = torch.tensor([[0.0], [1.0]]).repeat(10, 1)
    clusters = kmeans(duplicates, 5, backend="torch")
    assert len(clusters.assignments.unique()) == 2 and clusters.objective < 1e-9


def test_given_centroids_keep_the_cluster_ids():
    points, labels = blobs(6, 30)
    first = kmeans(points, 6, n_starts=5)
    moved = points + 0.05 * torch.randn(points.shape, generator=generator(3))
    again = kmeans(moved, 6, centroids=first.centroids)
    assert torch.equal(first.assignments, again.assignments)


def test_spherical_centroids_have_length_1():
    points = F.normalize(torch.randn(200, 6, generator=generator()))
    clusters = kmeans(points, 7, spherical=True)
    torch.testing.assert_close(clusters.centroids.norm(dim=1), torch.ones(7))
    cosines = points @ clusters.centroids.T
    assert (cosines.argmax(1) == clusters.assignments).float().mean() > 0.99


def test_kmeans_depends_on_the_generator_alone_and_keeps_its_input():
    points = torch.randn(200, 6, generator=generator())
    before = points.clone()
    first = kmeans(points, 9, generator=generator(4))
    torch.rand(5)
    again = kmeans(points, 9, generator=generator(4))
    assert torch.equal(first.centroids, again.centroids) and torch.equal(points, before)
    other = kmeans(points, 9, generator=generator(5))
    assert not torch.equal(first.centroids, other.centroids)


def test_more_starts_are_never_worse():
    points = torch.randn(300, 3, generator=generator())
    single = kmeans(points, 12, generator=generator(1))
    assert kmeans(points, 12, generator=generator(1), n_starts=6).objective <= single.objective


def test_few_clusters_start_in_different_blobs():
    points, labels = blobs(8, 50, spread=0.01)
    for seed in range(5):
        clusters = kmeans(points, 8, n_iterations=0, generator=generator(seed))
        assert metrics.clustering_accuracy(labels.numpy(), clusters.assignments.numpy()) == 1


@pytest.mark.parametrize("n_clusters", [0, 6])
def test_number_of_clusters_out_of_range_is_refused(n_clusters):
    with pytest.raises(UserError, match=f"cannot find {n_clusters} clusters in 5 images"):
        kmeans(torch.zeros(5, 2), n_clusters)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("kind", ["blobs", "random", "empty"])
def test_backends_give_equal_clusters(kind, spherical):
    points = (
        blobs(20, 100, d=32)[0] if kind == "blobs" else torch.randn(2000, 32, generator=generator())
    )
    start = points[::100]
    if kind == "empty":  # all but one cluster are empty at first
        start = points[:1].repeat(20, 1)
    points, start = (F.normalize(each) if spherical else each for each in (points, start))
    ours, faiss = (
        kmeans(points, 20, centroids=start, n_iterations=7, spherical=spherical, backend=backend)
        for backend in ("torch", "faiss")
    )
    assert torch.equal(ours.assignments, faiss.assignments)
    assert torch.equal(ours.centroids, faiss.centroids)
    assert (ours.n_iterations, ours.n_reseeded) == (faiss.n_iterations, faiss.n_reseeded)


def test_auto_backend_is_faiss_for_many_points_on_a_cpu(monkeypatch):
    calls = []
    assign = kmeans_module._assign_with_faiss
    monkeypatch.setattr(
        kmeans_module, "_assign_with_faiss", lambda *args: calls.append(1) or assign(*args)
    )
    kmeans(torch.randn(1023, 4, generator=generator()), 3)
    assert not calls
    kmeans(torch.randn(1024, 4, generator=generator()), 3)
    assert calls


@pytest.mark.parametrize("spherical", [False, True])
def test_objective_is_within_1_percent_of_the_kmeans_of_faiss(spherical):
    points = F.normalize(torch.randn(4000, 32, generator=generator()))
    ours = kmeans(points, 50, generator=generator(), spherical=spherical)
    theirs = faiss.Kmeans(32, 50, niter=20, spherical=spherical, max_points_per_centroid=4000)
    theirs.train(points.numpy())
    expected = points.numpy() - theirs.centroids[theirs.assign(points.numpy())[1]]
    assert ours.objective == pytest.approx((expected**2).sum(), rel=0.01)


def test_nearest_are_in_order_with_their_distances():
    centroids = torch.tensor([[0.0], [10.0], [4.0]])
    distances, ids = nearest(torch.tensor([[1.0], [8.0]]), centroids, 3)
    assert ids.tolist() == [[0, 2, 1], [1, 2, 0]]
    assert distances.tolist() == [[1, 9, 81], [4, 16, 64]]
    assert nearest(torch.zeros(0, 1), centroids, 2)[1].shape == (0, 2)
