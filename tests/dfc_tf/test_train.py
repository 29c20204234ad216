"""Training on one image, in this process."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from common import UserError
from common.tf import tf
from dfc_tf import config, data, loss, train

TINY = config.Model(width=12, n_clusters=12)


def noise(h=16, w=20, c=3, seed=0):
    return data.Sample(np.random.default_rng(seed).random((h, w, c)).astype(np.float32))


@pytest.fixture
def stripes():
    """Three stripes of color with a little noise, and their labels."""
    truth = np.repeat([0, 1, 2], 12)[None].repeat(30, 0)
    colors = np.array([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9]])
    image = colors[truth] + np.random.default_rng(0).normal(0, 0.02, (30, 36, 3))
    return data.Sample(np.clip(image, 0, 1).astype(np.float32)), truth


def train_on(sample, model=TINY, mode="each", **training):
    cfg = config.Config(
        dataset=config.Dataset(mode=mode), model=model, training=config.Training(**training)
    )
    return train.fit(cfg, train.State(cfg, sample.image.shape[2]), sample)


def test_three_colors_get_three_labels(stripes):
    sample, truth = stripes
    labels, _ = train_on(sample, model=config.Model(), n_iterations=200)
    inside = np.zeros(truth.shape, bool)
    inside[2:-2, 2:-2] = True  # away from border and edges, whose 5x5 windows differ
    inside[:, 10:14] = inside[:, 22:26] = False
    assert adjusted_rand_score(truth[inside], labels[inside]) == 1


def test_training_reduces_labels_and_loss(stripes):
    _, history = train_on(stripes[0], n_iterations=40)
    assert history.shape == (40, 3)
    assert history[-1, 2] < history[0, 2] and history[-1, 0] < history[0, 0]


def test_training_stops_at_min_labels(stripes):
    _, history = train_on(stripes[0], n_iterations=100, min_labels=8, check_interval=7)
    assert len(history) < 100
    assert history[-1, 2] <= 8 and (history[:-1, 2] > 8).all()


def test_min_labels_0_never_stops():
    _, history = train_on(
        data.Sample(np.zeros((9, 9, 3), np.float32)), n_iterations=9, min_labels=0
    )
    assert len(history) == 9


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_check_interval_does_not_change_results(chunk):
    labels, history = train_on(noise(), n_iterations=10, check_interval=5)
    same_labels, same_history = train_on(noise(), n_iterations=10, check_interval=chunk)
    assert np.array_equal(same_labels, labels) and np.array_equal(same_history, history)


def test_images_of_all_sizes_share_one_graph():
    cfg = config.Config(model=TINY, training=config.Training(n_iterations=2))
    state = train.State(cfg, 3)
    for h, w in ((8, 9), (12, 5), (1, 7), (8, 9)):
        train.fit(cfg, state, noise(h, w))
    assert state.train_steps.experimental_get_tracing_count() == 1


def test_images_are_trained_on_independently():
    cfg = config.Config(model=TINY, training=config.Training(n_iterations=5))
    state = train.State(cfg, 3)
    first = train.fit(cfg, state, noise())
    train.fit(cfg, state, noise(seed=1))
    repeated = train.fit(cfg, state, noise())
    assert np.array_equal(first[0], repeated[0]) and np.array_equal(first[1], repeated[1])


def slow_step(state, image, momentum, lr, mu):
    """One step of SGD by its formula, with TensorFlow's gradients."""
    variables = state.net.trainable_variables
    with tf.GradientTape() as tape:
        responses = state.net(image)
        labels = tf.argmax(responses, -1, output_type=tf.int32)
        mean = tf.fill(labels.shape, 1 / labels.shape.num_elements())
        value = loss.similarity(responses, labels, mean) + mu * loss.continuity(responses)
    gradients = tape.gradient(value, variables)
    velocity = [
        momentum * v.numpy() + g.numpy() for v, g in zip(state.moments, gradients, strict=True)
    ]
    return [w.numpy() - lr * v for w, v in zip(variables, velocity, strict=True)], velocity


def test_two_steps_match_sgd_with_momentum():
    cfg = config.Config(model=TINY, training=config.Training(check_interval=1, mu=2.0))
    state = train.State(cfg, 3)
    state.begin_batch(0)
    inputs = train.Inputs(cfg, [noise(6, 7)])
    for _ in range(2):
        weights, velocity = slow_step(state, inputs.arrays[0], 0.9, 0.1, 2.0)
        train.train_chunk(cfg, state, inputs)
        for expected, variable in zip(weights, state.net.trainable_variables, strict=True):
            np.testing.assert_allclose(variable, expected, atol=1e-5)
        for expected, variable in zip(velocity, state.moments, strict=True):
            np.testing.assert_allclose(variable, expected, atol=1e-4)


def test_first_step_of_adam_has_the_size_of_the_learning_rate():
    cfg = config.Config(
        model=TINY, training=config.Training(optimizer="adam", lr=0.01, check_interval=1)
    )
    state = train.State(cfg, 3)
    state.begin_batch(0)
    before = [variable.numpy() for variable in state.net.trainable_variables]
    train.train_chunk(cfg, state, train.Inputs(cfg, [noise()]))
    moved = [abs(v.numpy() - b) for v, b in zip(state.net.trainable_variables, before, strict=True)]
    assert np.median(np.concatenate([m.ravel() for m in moved])) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("auto", "expected"), [("none", 2.0), ("50/labels", 5.0), ("labels/15", 2 / 3)]
)
def test_auto_mu(auto, expected):
    training = config.Training(mu=2.0, auto_mu=auto)
    assert float(train._mu(training, tf.constant(10.0))) == pytest.approx(expected)


def test_pixel_weights_of_marked_and_unmarked():
    is_marked = tf.constant([[[True, False, False, False]]])
    weights = train._pixel_weights(is_marked, 0.5)
    np.testing.assert_allclose(weights, [[[0.5, 1 / 3, 1 / 3, 1 / 3]]])
    unmarked = train._pixel_weights(tf.constant([[[False, False]]]), 0.5)
    np.testing.assert_allclose(unmarked, [[[0.5, 0.5]]])


def test_scribbles_join_colors(stripes):
    sample, truth = stripes
    mask = np.full(truth.shape, -1, np.int32)
    mask[10:20, 3:9] = mask[10:20, 27:33] = 0  # the two outer colors are one class
    mask[10:20, 15:21] = 1
    labels, _ = train_on(
        dataclasses.replace(sample, scribbles=mask), model=config.Model(), n_iterations=100
    )
    assert (labels[mask == 0] == 0).all() and (labels[mask == 1] == 1).all()
    rows = labels[5:-5]
    assert (rows[:, 3:9] == 0).mean() > 0.9 and (rows[:, 27:33] == 0).mean() > 0.9


def test_more_scribbled_classes_than_clusters_are_refused(stripes):
    mask = np.arange(30 * 36).reshape(30, 36) % 20
    sample = dataclasses.replace(stripes[0], scribbles=mask.astype(np.int32))
    with pytest.raises(UserError, match="model.n_clusters is 12: expected at least 20"):
        train.check_scribbles(config.Config(model=TINY), sample)


def test_superpixels_instead_of_continuity(stripes):
    model = config.Model(width=24, n_clusters=24, superpixels=30)
    _, history = train_on(stripes[0], model=model, n_iterations=30, mu=0.0)
    assert np.isfinite(history).all() and history[-1, 2] < history[0, 2]


def test_nan_loss_is_refused_with_its_step():
    with pytest.raises(UserError, match="the loss became NaN or infinite at step [23]: lower"):
        train_on(noise(), lr=1e30, n_iterations=9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_smallest_images_get_labels(shape):
    labels, history = train_on(noise(*shape), n_iterations=3)
    assert labels.shape == shape and np.isfinite(history).all()


def test_any_number_of_channels():
    for c in (1, 2, 7):
        assert train_on(noise(9, 9, c), n_iterations=2)[0].shape == (9, 9)
