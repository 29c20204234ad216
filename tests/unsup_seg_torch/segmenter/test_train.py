"""Learning rate, weight decay, class weights, and that a square is learned."""

import numpy as np
import pytest
import torch

from unsup_seg_torch import Segmenter
from unsup_seg_torch.segmenter import config, sliding_window, train
from unsup_seg_torch.segmenter.data import IGNORE
from unsup_seg_torch.vit import encoder


class Pairs(list):
    """(image, labels) of two classes."""

    n_classes = 2


def test_learning_rate_is_polynomial_or_cosine_after_a_warmup():
    polynomial = config.Training(lr=1e-3)
    rates = [train.learning_rate(polynomial, i, 100) for i in (0, 50, 99, 100)]
    assert rates == pytest.approx([1e-3, 1e-3 * 0.5**0.9, 1e-3 * 0.01**0.9, 1e-5])
    cosine = config.Training(optimizer="adamw", lr=1.0, warmup=0.2)
    rates = [train.learning_rate(cosine, i, 100) for i in (0, 10, 20, 60, 100)]
    assert rates == pytest.approx([1 / 21, 11 / 21, 1, 0.5, 0])


def test_norms_biases_and_tokens_have_no_weight_decay():
    torch.manual_seed(0)
    net = Segmenter(encoder.build(None, (16, 24), patch_size=8, width=64, depth=1), 3)
    decayed, others = train.build_optimizer(config.Training(weight_decay=0.1), net).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
    assert all(p.ndim > 1 for p in decayed["params"])
    tokens = [net.encoder.net.pos_embed, net.encoder.net.cls_token, net.decoder.classes]
    assert all(any(p is token for p in others["params"]) for token in tokens)
    assert len(decayed["params"]) + len(others["params"]) == len(list(net.parameters()))


def test_class_weights_are_1_on_average_over_the_pixels():
    labels = np.zeros((10, 10), np.uint8)
    labels[0, :4], labels[1] = 1, IGNORE
    weights = train.class_weights(config.Training(balance=1.0), Pairs([(labels, labels)]))
    # 86 and 4 of 90 pixels; both classes have the same total weight
    assert weights.tolist() == pytest.approx([90 / (2 * 86), 90 / (2 * 4)])
    assert train.class_weights(config.Training(), Pairs()) is None


def test_network_and_average_learn_a_square():
    cfg = config.Config(
        dataset=config.Dataset(crop=(20, 30)),
        model=config.Model(
            patch_size=8, width=32, depth=1, decoder="linear", drop_path=0.0, cells=2
        ),
        training=config.Training(
            optimizer="adamw", lr=3e-3, batch_size=2, n_epochs=60, average=0.9, scale=(1.0, 1.0)
        ),
    )
    image, labels = np.full((20, 30, 3), 60, np.uint8), np.zeros((20, 30), np.uint8)
    image[5:15, 8:20], labels[5:15, 8:20] = (200, 30, 90), 1
    state = train.initial_state(cfg, 2, torch.device("cpu"))
    assert all(not p.requires_grad for p in state.kept.parameters())
    for _ in range(cfg.training.n_epochs):
        list(train.train_epoch(cfg, state, Pairs([(image, labels)] * 2)))
    for net in (state.net, state.kept):
        predicted = sliding_window.probabilities(net.eval(), image, cfg).argmax(0)
        assert (predicted == labels).mean() > 0.95
    pairs = zip(state.net.parameters(), state.kept.parameters(), strict=True)
    assert any(not torch.equal(own, average) for own, average in pairs)
