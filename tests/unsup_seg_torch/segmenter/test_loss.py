"""Loss and accuracy against loops over the pixels."""

import math

import numpy as np
import pytest
import torch

from unsup_seg_torch.segmenter import loss
from unsup_seg_torch.segmenter.data import IGNORE


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_cross_entropy_is_the_mean_over_labeled_pixels(weights):
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    labels[0, :2] = IGNORE
    total, total_weight = 0.0, 0.0
    for i in range(2):
        for y in range(4):
            for x in range(5):
                k = int(labels[i, y, x])
                if k != IGNORE:
                    weight = 1.0 if weights is None else float(weights[k])
                    values = [math.exp(v) for v in logits[i, :, y, x].tolist()]
                    total -= weight * math.log(values[k] / sum(values))
                    total_weight += weight
    value = loss.pixel_cross_entropy(logits, labels, weights)
    assert float(value) == pytest.approx(total / total_weight)


def test_pixel_accuracy_is_that_of_a_loop():
    torch.manual_seed(2)
    logits, labels = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 3, 5))
    labels[1, 2] = IGNORE
    is_right = [
        int(logits[i, :, y, x].argmax()) == int(labels[i, y, x])
        for i, y, x in np.ndindex(2, 3, 5)
        if labels[i, y, x] != IGNORE
    ]
    assert float(loss.pixel_accuracy(logits, labels)) == pytest.approx(np.mean(is_right))
    assert float(loss.pixel_accuracy(logits, torch.full_like(labels, IGNORE))) == 0


def test_unlabeled_batch_has_loss_0():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.full((1, 2, 2), IGNORE)
    for weights in (None, torch.ones(3)):
        value = loss.pixel_cross_entropy(logits, labels, weights)
        value.backward()
        assert float(value.detach()) == 0 and not logits.grad.any()
