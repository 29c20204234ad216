import itertools

import numpy as np
import pytest
import torch

from common import UserError, metrics
from deepcluster_torch.cluster.kmeans import kmeans
from deepcluster_torch.cluster.ward import merge


def exhaustive_ward(centers, sizes, n_groups):
    """Ward's method that computes the costs of all pairs in every step."""
    groups = [[i] for i in range(len(centers))]

    def cost(pair):
        (a, p), (b, q) = [
            (sum(sizes[i] for i in g), sum(sizes[i] * centers[i] for i in g))
            for g in (groups[pair[0]], groups[pair[1]])
        ]
        return a * b / (a + b) * ((p / a - q / b) ** 2).sum()

    while len(groups) > n_groups:
        i, j = min(itertools.combinations(range(len(groups)), 2), key=cost)
        groups[i] += groups.pop(j)
    labels = np.empty(len(centers), int)
    for number, members in enumerate(sorted(groups, key=min)):
        labels[members] = number
    return labels


@pytest.mark.parametrize("n_groups", [1, 2, 5, 24, 25])
def test_groups_equal_an_exhaustive_search(n_groups):
    random = np.random.default_rng(0)
    centers, sizes = random.normal(size=(25, 3)), random.integers(1, 50, 25)
    groups = merge(torch.from_numpy(centers), torch.from_numpy(sizes), n_groups)
    assert groups.tolist() == exhaustive_ward(centers, sizes, n_groups).tolist()


def test_over_clustered_blobs_are_merged_again():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(100)
    points = 5 * torch.randn(4, 8, generator=generator)[labels]
    points += 0.1 * torch.randn(400, 8, generator=generator)
    fine = kmeans(points, 20, n_starts=3)
    groups = merge(fine.centroids, torch.bincount(fine.assignments), 4)
    merged = groups[fine.assignments].numpy()
    assert metrics.clustering_accuracy(labels.numpy(), merged) == 1


def test_empty_cluster_joins_the_nearest_group():
    centers = torch.tensor([[0.0], [100.0], [101.0], [1.0]])
    assert merge(centers, torch.tensor([50, 50, 0, 0]), 2).tolist() == [0, 1, 1, 0]


def test_more_groups_than_clusters_are_refused():
    with pytest.raises(UserError, match="cannot merge 3 clusters into 4 groups"):
        merge(torch.zeros(3, 2), torch.ones(3), 4)
