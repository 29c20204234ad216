import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.pytorch import probes


@pytest.fixture
def blobs():
    """Three directions in ten dimensions, 30 points around each, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 30)
    points = 5 * np.eye(10)[labels] + rng.normal(0, 0.5, (90, 10))
    return torch.from_numpy(points).float(), torch.from_numpy(labels)


def split(points, labels):
    """Every other point as bank, the rest as queries."""
    return points[::2], labels[::2], points[1::2], labels[1::2]


def test_separate_classes_are_classified_perfectly(blobs):
    assert probes.knn_accuracy(*split(*blobs), k=5) == 1
    assert probes.linear_accuracy(*split(*blobs)) == 1


def test_shuffled_labels_are_classified_by_chance(blobs):
    points, labels = blobs
    shuffled = labels[torch.randperm(90, generator=torch.Generator().manual_seed(0))]
    assert probes.knn_accuracy(*split(points, shuffled), k=5) < 0.6
    assert probes.linear_accuracy(*split(points, shuffled)) < 0.6


def test_near_neighbor_outvotes_many_far_ones():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels, query = torch.tensor([7, 1, 1]), torch.tensor([[1.0, 0.1]])
    assert probes.knn_predict(bank, labels, query, k=3).tolist() == [7]
    assert probes.knn_predict(bank, labels, query, k=99).tolist() == [7]  # more than there are


def test_knn_predict_matches_a_slow_vote(monkeypatch):
    monkeypatch.setattr(probes, "BATCH", 4)  # several batches, the last is smaller
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.randn(n, 5, generator=generator) for n in (30, 10))
    labels = torch.randint(4, (30,), generator=generator)
    expected = []
    for query in queries:
        cosines = F.cosine_similarity(bank, query[None])
        votes = torch.zeros(4)
        for i in cosines.argsort(descending=True)[:6]:
            votes[labels[i]] += (cosines[i] / probes.TEMPERATURE).exp()
        expected.append(int(votes.argmax()))
    assert probes.knn_predict(bank, labels, queries, k=6).tolist() == expected


def test_points_as_near_as_the_last_neighbor_share_its_vote():
    # two of three equal points are neighbors: label 2 has 2 * 2/3 votes, label 1 has 2 * 1/3
    bank, query = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]), torch.ones(1, 2)
    for labels in ([9, 1, 2, 2], [9, 2, 2, 1], [9, 2, 1, 2]):
        assert probes.knn_predict(bank, torch.tensor(labels), query, k=2).tolist() == [2]
    # one neighbor of either label: the lower one, wherever it is
    for labels in ([9, 1, 2, 2], [9, 2, 1, 1]):
        assert probes.knn_predict(bank[:3], torch.tensor(labels[:3]), query, k=1).tolist() == [1]


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("n_distinct", [40, 1200])
def test_knn_does_not_depend_on_the_order_of_the_rows(n_distinct, k):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(n_distinct, 30, generator=generator)
    points = points[torch.randint(n_distinct, (1501,), generator=generator)]
    labels = torch.randint(4, (1501,), generator=generator)
    bank, queries = (points[:1000], labels[:1000]), points[1000:]
    expected = probes.knn_predict(*bank, queries, k)
    for _ in range(3):
        rows, columns = (torch.randperm(n, generator=generator) for n in (1000, 501))
        mixed = probes.knn_predict(bank[0][rows], bank[1][rows], queries[columns], k)
        assert torch.equal(mixed, expected[columns])


def test_accuracies_are_exact_fractions(blobs):
    points, labels = blobs
    wrong = labels[1::2].clone()
    wrong[:4] = (wrong[:4] + 1) % 3
    sets = points[::2], labels[::2], points[1::2], wrong
    assert probes.knn_accuracy(*sets, k=5) == probes.linear_accuracy(*sets) == 41 / 45


def test_linear_accuracy_is_invariant_to_scale_and_constant_features(blobs):
    bank, labels, queries, truth = split(*blobs)
    bank, queries = ((F.pad(x, (0, 1), value=3.0) * 100 + 7) for x in (bank, queries))
    assert probes.linear_accuracy(bank, labels, queries, truth) == 1


def test_classes_only_in_the_queries_are_misses():
    bank, labels = torch.eye(2), torch.tensor([0, 1])
    queries, truth = torch.eye(2), torch.tensor([0, 5])
    assert probes.knn_accuracy(bank, labels, queries, truth, k=1) == 0.5
    assert probes.linear_accuracy(bank, labels, queries, truth) == 0.5
