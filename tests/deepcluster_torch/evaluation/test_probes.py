"""k-NN, linear probe and retrieval on points whose answer is known."""

import numpy as np
import pytest
import torch

from common import datasets
from deepcluster_torch import probes


@pytest.fixture
def blobs():
    """Three directions in ten dimensions, 30 points around each, and their labels."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 30)
    points = 5 * np.eye(10)[labels] + random.normal(0, 0.5, (90, 10))
    return torch.from_numpy(points).float(), torch.from_numpy(labels)


def test_separate_classes_are_found_by_all(blobs):
    points, labels = blobs
    half = torch.arange(90) % 2 == 0
    sets = points[half], labels[half], points[~half], labels[~half]
    assert probes.knn(*sets) == 1
    assert probes.probe(*sets) == 1
    assert probes.mean_average_precision(*sets) == pytest.approx(1)


def test_labels_without_a_reason_are_found_by_chance(blobs):
    points, labels = blobs
    wrong = labels[torch.randperm(90, generator=torch.Generator().manual_seed(0))]
    sets = points[::2], wrong[::2], points[1::2], wrong[1::2]
    assert probes.knn(*sets) < 0.6 and probes.probe(*sets) < 0.6
    assert probes.mean_average_precision(*sets) < 0.6


def test_near_neighbours_outvote_many_far_ones():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 0.1]])
    assert probes.knn(bank, torch.tensor([0, 1, 1]), query, torch.tensor([0])) == 1


def test_average_precision_is_that_of_a_ranking_by_hand():
    # by cosine the order is a b a b: precision 1/1 and 2/3 for a, 1/2 and 2/4 for b
    angles = np.deg2rad([0, 10, 20, 30])
    bank = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], 1)).float()
    labels, query = torch.tensor([0, 1, 0, 1]), torch.tensor([[1.0, -0.1]])
    score = probes.mean_average_precision
    assert score(bank, labels, query, torch.tensor([0])) == pytest.approx((1 + 2 / 3) / 2)
    assert score(bank, labels, query, torch.tensor([1])) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert score(bank, labels, query, torch.tensor([7])) == 0  # nothing of its class


def test_a_stage_is_averaged_until_it_has_few_values():
    assert probes.flat(torch.rand(2, 64, 30, 30)).shape == (2, 64 * 8 * 8)
    assert probes.flat(torch.rand(2, 64, 3, 5)).shape == (2, 64 * 3 * 5)
    assert probes.flat(torch.rand(2, 7)).shape == (2, 7)
    values = torch.rand(2, 5000, 4, 4)
    torch.testing.assert_close(probes.flat(values), values.mean((2, 3)))


def images(n, labels=None):
    pixels, paths = np.zeros((n, 4, 4, 1), np.uint8), [str(i) for i in range(n)]
    return datasets.Images(pixels, labels, paths, None, [], "")


def test_without_held_out_images_a_fifth_of_the_labels_is_hidden():
    bank, queries, what = probes.pair(images(50, np.arange(50)), None)
    assert (len(bank.paths), len(queries.paths)) == (40, 10)
    assert not set(bank.paths) & set(queries.paths) and what == probes.HIDDEN


def test_held_out_images_are_asked_about():
    bank, queries, what = probes.pair(images(50, np.arange(50)), images(7, np.arange(7)))
    assert (len(bank.paths), len(queries.paths), what) == (50, 7, probes.HELD_OUT)
