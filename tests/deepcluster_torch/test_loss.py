"""The losses against plain loops."""

import numpy as np
import pytest
import torch

from deepcluster_torch import loss


@pytest.fixture
def random():
    return np.random.default_rng(0)


def cross_entropy(scores, label):
    """-log softmax of one image"""
    return np.log(np.exp(scores).sum()) - scores[label]


def test_pseudo_label_loss_is_the_mean_cross_entropy(random):
    logits, labels = random.normal(size=(5, 3)), np.array([2, 0, 1, 1, 2])
    expected = np.mean(
        [cross_entropy(row, label) for row, label in zip(logits, labels, strict=True)]
    )
    value = loss.pseudo_label_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert value.item() == pytest.approx(expected)


def test_prototype_loss_is_the_mean_over_heads_crops_and_images(random):
    n_crops, n_images, temperature = 3, 4, 0.1
    heads = [random.uniform(-1, 1, (n_crops * n_images, k)) for k in (5, 2)]  # cosines
    labels = np.stack([random.integers(0, k, n_images) for k in (5, 2)])
    expected = np.mean(
        [
            cross_entropy(heads[h][crop * n_images + image] / temperature, labels[h, image])
            for h in range(2)
            for crop in range(n_crops)
            for image in range(n_images)
        ]
    )
    cosines = [torch.from_numpy(head) for head in heads]
    value = loss.prototype_loss(cosines, torch.from_numpy(labels), temperature)
    assert value.item() == pytest.approx(expected)


def test_prototype_loss_of_equal_cosines_is_the_log_of_the_head_size():
    # ln k: the loss before anything is learned
    value = loss.prototype_loss([torch.zeros(6, 50)], torch.zeros(1, 3, dtype=torch.int64), 0.1)
    assert value.item() == pytest.approx(np.log(50))
