"""The training of one picture, in this process."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import adjusted_rand_score

from common import UserError
from dfc_tf import config, data, loss, train

TINY = config.Model(width=12, n_clusters=12)


def picture(image, scribbles=None):
    return data.Picture("", "", image, data.to_rgb(image), scribbles)


def noise(h=16, w=20, seed=0):
    return np.random.default_rng(seed).random((h, w, 3)).astype(np.float32)


@pytest.fixture
def flags():
    """Three colours with a little noise, and where they are."""
    truth = np.repeat([0, 1, 2], 12)[None].repeat(30, 0)
    colours = np.array([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9]])
    image = colours[truth] + np.random.default_rng(0).normal(0, 0.02, (30, 36, 3))
    return picture(np.clip(image, 0, 1).astype(np.float32)), truth


def trained(found, model=TINY, mode="each", **training):
    cfg = config.Config(
        dataset=config.Dataset(mode=mode), model=model, training=config.Training(**training)
    )
    state = train.State(cfg, found.image.shape[2])
    return state, *train.fit(cfg, state, found)


def test_three_colours_are_three_labels(flags):
    found, truth = flags
    _, labels, _ = trained(found, model=config.Model(), n_iterations=200)
    inside = np.zeros(truth.shape, bool)
    inside[2:-2, 2:-2] = True  # beside the border and the edges a 5x5 window sees something else
    inside[:, 10:14] = inside[:, 22:26] = False
    assert adjusted_rand_score(truth[inside], labels[inside]) == 1


def test_labels_become_fewer_and_the_loss_smaller(flags):
    _, _, history = trained(flags[0], n_iterations=40)
    assert history.shape == (40, 3)
    assert history[-1, 2] < history[0, 2] and history[-1, 0] < history[0, 0]


def test_it_stops_when_few_labels_are_left(flags):
    _, _, history = trained(flags[0], n_iterations=100, min_labels=8, check_interval=7)
    assert len(history) < 100
    assert history[-1, 2] <= 8 and (history[:-1, 2] > 8).all()


def test_min_labels_zero_never_stops():
    _, _, history = trained(picture(np.zeros((9, 9, 3), np.float32)), n_iterations=9, min_labels=0)
    assert len(history) == 9


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_looking_more_often_changes_nothing(chunk):
    expected = trained(picture(noise()), n_iterations=10, check_interval=5)
    found = trained(picture(noise()), n_iterations=10, check_interval=chunk)
    assert np.array_equal(found[1], expected[1]) and np.array_equal(found[2], expected[2])


def test_pictures_of_all_sizes_share_one_graph():
    cfg = config.Config(model=TINY, training=config.Training(n_iterations=2))
    state = train.State(cfg, 3)
    for h, w in ((8, 9), (12, 5), (1, 7), (8, 9)):
        train.fit(cfg, state, picture(noise(h, w)))
    assert state.advance.experimental_get_tracing_count() == 1


def test_a_picture_is_not_changed_by_the_one_before():
    cfg = config.Config(model=TINY, training=config.Training(n_iterations=5))
    state = train.State(cfg, 3)
    first = train.fit(cfg, state, picture(noise()))
    train.fit(cfg, state, picture(noise(seed=1)))
    again = train.fit(cfg, state, picture(noise()))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])


def slow_step(state, image, momentum, lr, mu):
    """One step of SGD as it is written down, through TensorFlow's own gradients."""
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


def test_two_steps_are_those_of_sgd_with_momentum():
    found = picture(noise(6, 7))
    cfg = config.Config(model=TINY, training=config.Training(check_interval=1, mu=2.0))
    state = train.State(cfg, 3)
    state.begin_batch(0)
    inputs = train.Inputs(cfg, [found])
    for _ in range(2):
        weights, velocity = slow_step(state, inputs.arrays[0], 0.9, 0.1, 2.0)
        train.train_chunk(cfg, state, inputs)
        for expected, variable in zip(weights, state.net.trainable_variables, strict=True):
            np.testing.assert_allclose(variable, expected, atol=1e-5)
        for expected, variable in zip(velocity, state.moments, strict=True):
            np.testing.assert_allclose(variable, expected, atol=1e-4)


def test_the_first_step_of_adam_is_the_rate_in_the_direction_of_the_sign():
    cfg = config.Config(
        model=TINY, training=config.Training(optimizer="adam", lr=0.01, check_interval=1)
    )
    state = train.State(cfg, 3)
    state.begin_batch(0)
    before = [variable.numpy() for variable in state.net.trainable_variables]
    train.train_chunk(cfg, state, train.Inputs(cfg, [picture(noise())]))
    moved = [abs(v.numpy() - b) for v, b in zip(state.net.trainable_variables, before, strict=True)]
    assert np.median(np.concatenate([m.ravel() for m in moved])) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("auto", "expected"), [("none", 2.0), ("50/labels", 5.0), ("labels/15", 2 / 3)]
)
def test_mu_may_follow_the_labels(auto, expected):
    training = config.Training(mu=2.0, auto_mu=auto)
    assert float(train._mu(training, tf.constant(10.0))) == pytest.approx(expected)


def test_marked_pixels_take_their_class_and_their_weight():
    is_marked = tf.constant([[[True, False, False, False]]])
    weights = train._weights(is_marked, 0.5)
    np.testing.assert_allclose(weights, [[[0.5, 1 / 3, 1 / 3, 1 / 3]]])
    nothing = train._weights(tf.constant([[[False, False]]]), 0.5)
    np.testing.assert_allclose(nothing, [[[0.5, 0.5]]])


def test_scribbles_decide_which_colours_belong_together(flags):
    found, truth = flags
    mask = np.full(truth.shape, -1, np.int32)
    mask[10:20, 3:9] = mask[10:20, 27:33] = 0  # the two outer colours are one class
    mask[10:20, 15:21] = 1
    _, labels, _ = trained(
        dataclasses.replace(found, scribbles=mask), model=config.Model(), n_iterations=100
    )
    assert (labels[mask == 0] == 0).all() and (labels[mask == 1] == 1).all()
    centre = labels[5:-5]
    assert (centre[:, 3:9] == 0).mean() > 0.9 and (centre[:, 27:33] == 0).mean() > 0.9


def test_more_scribbled_classes_than_clusters_are_refused(flags):
    mask = np.arange(30 * 36).reshape(30, 36) % 20
    found = dataclasses.replace(flags[0], scribbles=mask.astype(np.int32))
    with pytest.raises(UserError, match="model.n_clusters is 12, the scribbles have 20 classes"):
        train.check(config.Config(model=TINY), found)


def test_superpixels_take_the_place_of_continuity(flags):
    model = config.Model(width=24, n_clusters=24, superpixels=30)
    _, labels, history = trained(flags[0], model=model, n_iterations=30, mu=0.0)
    assert np.isfinite(history).all() and history[-1, 2] < history[0, 2]


def test_a_loss_that_is_no_number_stops_with_the_step_named():
    with pytest.raises(UserError, match="the loss became NaN or infinite at step [23]: lower"):
        trained(picture(noise()), lr=1e30, n_iterations=9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_the_smallest_pictures_get_labels(shape):
    _, labels, history = trained(picture(noise(*shape)), n_iterations=3)
    assert labels.shape == shape and np.isfinite(history).all()


def test_any_number_of_channels_is_trained_on():
    for c in (1, 2, 7):
        image = np.random.default_rng(0).random((9, 9, c)).astype(np.float32)
        assert trained(picture(image), n_iterations=2)[1].shape == (9, 9)
