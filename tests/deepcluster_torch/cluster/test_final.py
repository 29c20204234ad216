"""The final clustering: the same for training images and for new ones."""

import numpy as np
import pytest
import torch

from deepcluster_torch import config
from deepcluster_torch.cluster import final
from deepcluster_torch.cluster.kmeans import nearest
from deepcluster_torch.model.features import spread


@pytest.fixture
def features():
    """600 features (n, 12) around six points; image i belongs to point i % 6."""
    generator = torch.Generator().manual_seed(0)
    centers = 4 * torch.randn(6, 12, generator=generator)
    return centers.repeat(100, 1) + torch.randn(600, 12, generator=generator)


def fit(features, n_init=1, **model):
    model = {"n_clusters": 6, "eigen_power": 0.0} | model
    training = config.Training(n_init=n_init)
    return final.fit(features, config.Config(model=config.Model(**model), training=training))


def test_six_blobs_are_six_clusters(features):
    clustering = fit(features, n_init=5)
    clusters = clustering.assign(features).clusters
    assert all(len(set(clusters[i::6])) == 1 for i in range(6))
    assert len(set(clusters)) == clustering.n_groups == 6


def test_a_feature_has_the_same_cluster_alone_and_in_a_batch(features):
    clustering = fit(features)
    together = clustering.assign(features)
    alone = np.concatenate([clustering.assign(row[None]).clusters for row in features[:50]])
    np.testing.assert_array_equal(alone, together.clusters[:50])


def test_nearest_clusters_come_first_with_their_distances(features):
    clustering = fit(features)
    assignments = clustering.assign(features)
    points = clustering.embed(features)
    distances = torch.cdist(points, clustering.centroids).square().numpy()
    np.testing.assert_array_equal(assignments.nearest, distances.argsort(1)[:, :3])
    np.testing.assert_allclose(assignments.distances, np.sort(distances, 1)[:, :3], atol=1e-5)


def test_groups_are_merged_clusters(features):
    clustering = fit(features, n_clusters=30, n_groups=6)
    assignments = clustering.assign(features)
    assert clustering.groups.shape == (30,) and clustering.n_groups == 6
    groups = clustering.groups.numpy()[assignments.fine]
    np.testing.assert_array_equal(groups, assignments.clusters)
    assert all(len(set(assignments.clusters[i::6])) == 1 for i in range(6))
    # the distance to a group is the distance to the nearest of its clusters
    distances = torch.cdist(clustering.embed(features), clustering.centroids).square()
    for group in range(6):
        to_group = distances[:, clustering.groups == group].min(1).values.numpy()
        is_second = assignments.nearest[:, 1] == group
        np.testing.assert_allclose(
            assignments.distances[is_second, 1], to_group[is_second], atol=1e-5
        )


def test_one_cluster_is_the_only_nearest(features):
    assignments = fit(features, n_clusters=1).assign(features)
    assert assignments.nearest.shape == assignments.distances.shape == (600, 1)


def test_features_without_pca_are_only_normalized(features):
    clustering = fit(features, pca_dim=None)
    expected = torch.nn.functional.normalize(features)
    torch.testing.assert_close(clustering.embed(features), expected)


def test_pic_assigns_to_the_nearest_mean_of_its_clusters(features):
    clustering = fit(features, clustering="pic")
    points = clustering.embed(features)
    expected = nearest(points, clustering.centroids)[1][:, 0].numpy()
    np.testing.assert_array_equal(clustering.assign(features).clusters, expected)


def test_means_are_those_of_the_members():
    points = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]])
    means = final.means(points, torch.tensor([1, 1, 0]))
    assert means.tolist() == [[5.0, 5.0], [2.0, 1.0]]


def test_spread_is_0_for_one_direction_and_1_for_opposite_ones():
    assert spread(torch.tensor([[1.0, 1.0], [3.0, 3.0]])) == pytest.approx(0, abs=1e-3)
    assert spread(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(1)
