"""Weight decay of both optimizers against updates by hand."""

import numpy as np
import pytest

from clusterloss_tf import config, train
from common.tf import tf

LR, DECAY = 0.5, 0.02
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 1), np.uint8)
LABELS = np.arange(12) % 3


def build(optimizer, labels=LABELS, **options):
    cfg = config.Config(
        model=config.Model(depth=7, growth=2, dim=4),
        training=config.Training(
            optimizer=optimizer, lr=LR, weight_decay=DECAY, augment="none", **options
        ),
    )
    return train.State(cfg, IMAGES, labels)


def values(state):
    return {v.path: v.numpy() for v in state.trainable_variables}


def step(state, labels=LABELS):
    state.update(tf.constant(IMAGES), tf.constant(labels), tf.constant(0))


def clipped_gradients(state):
    variables = [v.value for v in state.trainable_variables]
    with tf.GradientTape() as tape:
        images = tf.constant(IMAGES, tf.float32) / 255
        loss = state.loss(tf.constant(LABELS), state.net(images, training=True))
    gradients = [g.numpy().astype(np.float64) for g in tape.gradient(loss, variables)]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    return [g * min(1, train.MAX_GRADIENT_NORM / norm) for g in gradients]


@pytest.mark.parametrize("options", [{"loss": "softmax"}, {"reduction": "sum"}])
def test_two_sgd_steps_have_the_l2_penalty_in_the_gradient(options):
    state = build("sgd", **options)
    expected = values(state)
    velocity = dict.fromkeys(expected, 0.0)
    for _ in range(2):
        for (name, value), slope in zip(expected.items(), clipped_gradients(state), strict=True):
            slope = slope + DECAY * value  # of DECAY / 2 * sum of squares
            velocity[name] = 0.9 * velocity[name] - LR * slope
            expected[name] = value + 0.9 * velocity[name] - LR * slope  # Nesterov
        step(state)
    for name, value in values(state).items():
        # the same gradient from a compiled graph differs in the last bits
        np.testing.assert_allclose(value, expected[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_sgd_decays_all_variables_through_the_momentum():
    labels = np.arange(12)  # one image per class: the loss and its gradient are zero
    state = build("sgd", labels)
    before = values(state)
    for _ in range(2):
        step(state, labels)
    # s = LR * DECAY; w1 = (1 - 1.9 s) w0; v1 = -s w0; v2 = 0.9 v1 - s w1; w2 = w1 + 0.9 v2 - s w1
    s = LR * DECAY
    first = 1 - 1.9 * s
    factor = first + 0.9 * (-0.9 * s - s * first) - s * first
    for name, value in values(state).items():
        np.testing.assert_allclose(value, factor * before[name], rtol=1e-5, atol=1e-7)
    assert any("gamma" in name for name in before)


def test_adam_decays_kernels_only_and_without_the_gradient():
    labels = np.arange(12)
    state = build("adam", labels)
    before = values(state)
    step(state, labels)
    for name, value in values(state).items():
        factor = 1 - LR * DECAY if "kernel" in name else 1
        np.testing.assert_allclose(value, factor * before[name], rtol=1e-6, err_msg=name)
