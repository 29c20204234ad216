"""From features to clusters, the same for the training images and for new ones."""

import numpy as np
import pytest
import torch

from common import UserError
from deepcluster_torch import cluster, config, readout


@pytest.fixture
def features():
    """600 features (n, 12) around six points."""
    random = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(6, 12, generator=random)
    return centres.repeat(100, 1) + torch.randn(600, 12, generator=random)


def fit(features, training=(), **model):
    model = {"n_clusters": 6, "eigen_power": 0.0} | model
    cfg = config.Config(config.Dataset(), config.Model(**model), config.Training(**dict(training)))
    return readout.fit(features, cfg)


def test_six_points_are_six_clusters(features):
    found = fit(features, {"n_init": 5})
    clusters = readout.assign(features, found).clusters
    assert all(len(set(clusters[i::6])) == 1 for i in range(6))
    assert len(set(clusters)) == found.n_groups == 6


def test_a_feature_has_the_same_cluster_alone_and_among_others(features):
    found = fit(features)
    together = readout.assign(features, found)
    alone = np.concatenate([readout.assign(row[None], found).clusters for row in features[:50]])
    np.testing.assert_array_equal(alone, together.clusters[:50])


def test_the_nearest_come_first_with_their_distances(features):
    found = fit(features)
    assigned = readout.assign(features, found)
    points = found.embed(features)
    distances = torch.cdist(points, found.centroids).square().numpy()
    np.testing.assert_array_equal(assigned.nearest, distances.argsort(1)[:, :3])
    np.testing.assert_allclose(assigned.distances, np.sort(distances, 1)[:, :3], atol=1e-5)
    np.testing.assert_allclose(
        assigned.margins, assigned.distances[:, 1] - assigned.distances[:, 0]
    )


def test_merged_clusters_are_groups_of_the_fine_ones(features):
    found = fit(features, n_clusters=30, n_groups=6)
    assigned = readout.assign(features, found)
    assert found.groups.shape == (30,) and found.n_groups == 6
    np.testing.assert_array_equal(found.groups.numpy()[assigned.fine], assigned.clusters)
    assert all(len(set(assigned.clusters[i::6])) == 1 for i in range(6))
    # the distance to a group is that to the nearest of its clusters
    distances = torch.cdist(found.embed(features), found.centroids).square()
    for group in range(6):
        of_group = distances[:, found.groups == group].min(1).values.numpy()
        is_second = assigned.nearest[:, 1] == group
        np.testing.assert_allclose(assigned.distances[is_second, 1], of_group[is_second], atol=1e-5)


def test_one_cluster_has_no_margin(features):
    assigned = readout.assign(features, fit(features, n_clusters=1))
    assert assigned.nearest.shape == (600, 1) and np.isnan(assigned.margins).all()


def test_without_pca_features_are_only_scaled_to_length_1(features):
    found = fit(features, pca_dim=None)
    torch.testing.assert_close(found.embed(features), torch.nn.functional.normalize(features))


def test_pic_is_read_out_by_the_means_of_its_clusters(features):
    found = fit(features, clustering="pic")
    points = found.embed(features)
    nearest = cluster.nearest(points, found.centroids)[1][:, 0].numpy()
    np.testing.assert_array_equal(readout.assign(features, found).clusters, nearest)


def test_means_are_those_of_the_members():
    points = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]])
    found = readout.means(points, torch.tensor([1, 1, 0]))
    assert found.tolist() == [[5.0, 5.0], [2.0, 1.0]]


def test_spread_is_0_for_one_direction_and_1_for_opposite_ones():
    assert readout.spread(torch.tensor([[1.0, 1.0], [3.0, 3.0]])) == pytest.approx(0, abs=1e-3)
    assert readout.spread(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(1)


def test_pic_refuses_more_images_than_it_is_made_for():
    with pytest.raises(UserError, match="100,000 or fewer, take kmeans"):
        readout.find_pic(torch.empty(100_001, 2), config.Model())
