"""k-NN, linear probe and retrieval on points with known scores."""

import numpy as np
import pytest
import torch

from common import datasets
from common.pytorch.probes import knn_accuracy, linear_accuracy
from deepcluster_torch.evaluation import probes


@pytest.fixture
def blobs():
    """Three directions in ten dimensions, 30 points around each, and their labels."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 30)
    points = 5 * np.eye(10)[labels] + random.normal(0, 0.5, (90, 10))
    return torch.from_numpy(points).float(), torch.from_numpy(labels)


def test_separate_classes_have_perfect_scores(blobs):
    points, labels = blobs
    half = torch.arange(90) % 2 == 0
    sets = points[half], labels[half], points[~half], labels[~half]
    assert knn_accuracy(*sets, k=20) == 1
    assert linear_accuracy(*sets) == 1
    assert probes.mean_average_precision(*sets) == pytest.approx(1)


def test_random_labels_have_low_scores(blobs):
    points, labels = blobs
    random = labels[torch.randperm(90, generator=torch.Generator().manual_seed(0))]
    sets = points[::2], random[::2], points[1::2], random[1::2]
    assert knn_accuracy(*sets, k=20) < 0.6 and linear_accuracy(*sets) < 0.6
    assert probes.mean_average_precision(*sets) < 0.6


def test_knn_near_neighbors_outvote_more_distant_ones():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 0.1]])
    assert knn_accuracy(bank, torch.tensor([0, 1, 1]), query, torch.tensor([0]), k=20) == 1


def test_average_precision_equals_a_ranking_by_hand():
    # by cosine the order is a b a b: precision 1/1 and 2/3 for a, 1/2 and 2/4 for b
    angles = np.deg2rad([0, 10, 20, 30])
    bank = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], 1)).float()
    labels, query = torch.tensor([0, 1, 0, 1]), torch.tensor([[1.0, -0.1]])
    score = probes.mean_average_precision
    assert score(bank, labels, query, torch.tensor([0])) == pytest.approx((1 + 2 / 3) / 2)
    assert score(bank, labels, query, torch.tensor([1])) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert score(bank, labels, query, torch.tensor([7])) == 0  # nothing of its class


def test_average_precision_does_not_depend_on_the_order_of_ties():
    bank, query = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.1]])
    for labels in ([0, 1, 1], [1, 0, 1]):  # 0: rank 1 or 2, precision 1 or 1/2
        score = probes.mean_average_precision(bank, torch.tensor(labels), query, torch.tensor([0]))
        assert score == pytest.approx((1 + 1 / 2) / 2)


def test_pool_limits_the_number_of_values():
    assert probes.pool(torch.rand(2, 64, 30, 30)).shape == (2, 64 * 8 * 8)
    assert probes.pool(torch.rand(2, 64, 3, 5)).shape == (2, 64 * 3 * 5)
    assert probes.pool(torch.rand(2, 7)).shape == (2, 7)
    values = torch.rand(2, 5000, 4, 4)
    torch.testing.assert_close(probes.pool(values), values.mean((2, 3)))


def images(n, labels=None):
    pixels, paths = np.zeros((n, 4, 4, 1), np.uint8), [str(i) for i in range(n)]
    return datasets.Images(pixels, labels, paths, None, [], "")


def test_queries_without_held_out_images_are_a_fifth_of_the_training():
    bank, queries, description = probes.bank_and_queries(images(50, np.arange(50)), None)
    assert (len(bank.paths), len(queries.paths)) == (40, 10)
    assert not set(bank.paths) & set(queries.paths) and description == probes.TRAINING


def test_queries_are_the_held_out_images():
    bank, queries, description = probes.bank_and_queries(
        images(50, np.arange(50)), images(7, np.arange(7))
    )
    assert (len(bank.paths), len(queries.paths), description) == (50, 7, probes.HELD_OUT)
