"""k-NN against a loop, the linear probe on a linear rule, and the comparison of features."""

import math

import numpy as np
import torch

from common import datasets
from common.pytorch import probes as common_probes
from tests.unsup_seg_torch.dino.tiny import MODEL, colored_squares, make_config
from unsup_seg_torch.dino import config, model, probes


def test_knn_vote_is_that_of_a_loop():
    random = np.random.default_rng(0)
    bank, queries = random.normal(size=(30, 5)), random.normal(size=(11, 5))
    labels = random.integers(0, 4, 30)
    expected = []
    for query in queries:
        cosines = [row @ query / np.linalg.norm(row) / np.linalg.norm(query) for row in bank]
        votes = np.zeros(4)
        for i in np.argsort(cosines)[::-1][:7]:
            votes[labels[i]] += math.exp(cosines[i] / common_probes.TEMPERATURE)
        expected.append(votes.argmax())
    predicted = common_probes.knn_predict(*map(torch.from_numpy, (bank, labels, queries)), 7)
    assert predicted.tolist() == expected


def test_linear_probe_learns_a_linear_rule():
    torch.manual_seed(0)
    values = torch.randn(200, 6)
    labels = (values[:, 0] > 0).long()
    accuracy = common_probes.linear_accuracy(values[:150], labels[:150], values[150:], labels[150:])
    assert accuracy > 0.9


def test_features_are_compared_with_pixels_and_the_untrained_network():
    names = [str(i) for i in range(24)]
    dataset = datasets.Images(colored_squares(), np.arange(24) % 3, names, None, [], "")
    nets = [model.build(config.Model(**MODEL), 16).teacher.encoder.eval() for _ in range(2)]
    report = probes.compare(*nets, make_config(), dataset, None)
    assert (report["n_bank"], report["n_queries"]) == (20, 4)
    for name in ("scores", "untrained", "raw_pixels", "centered_pixels"):
        assert report[name].keys() == {"knn_10", "knn_20", "linear"}
        assert all(0 <= value <= 1 for value in report[name].values())
    assert "every fifth image" in report["protocol"]
