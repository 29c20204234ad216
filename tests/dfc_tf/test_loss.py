"""The two loss terms against slow loops, the compiled gradient against finite differences."""

import numpy as np
import pytest

from common.tf import tf
from dfc_tf import loss


@pytest.fixture
def responses():
    return np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)


def slow_similarity(responses, targets, weights):
    total = 0.0
    for pixel in np.ndindex(targets.shape):
        values = responses[pixel].astype(np.float64)
        total -= weights[pixel] * np.log(np.exp(values[targets[pixel]]) / np.exp(values).sum())
    return total


def slow_continuity(responses):
    b, h, w, q = responses.shape
    vertical = [
        abs(responses[n, y + 1, x, c] - responses[n, y, x, c])
        for n in range(b) for y in range(h - 1) for x in range(w) for c in range(q)
    ]  # fmt: skip
    horizontal = [
        abs(responses[n, y, x + 1, c] - responses[n, y, x, c])
        for n in range(b) for y in range(h) for x in range(w - 1) for c in range(q)
    ]  # fmt: skip
    return np.mean(vertical or [0]) + np.mean(horizontal or [0])


def test_similarity_is_weighted_cross_entropy(responses):
    random = np.random.default_rng(1)
    targets = random.integers(0, 5, (2, 3, 4)).astype(np.int32)
    weights = random.random((2, 3, 4)).astype(np.float32)
    expected = slow_similarity(responses, targets, weights)
    assert float(loss.similarity(responses, targets, weights)) == pytest.approx(expected, rel=1e-5)


def test_similarity_to_the_winning_channel():
    # one pixel, two channels 0 and log 3: the winner has probability 3/4
    responses = np.array([[[[0.0, np.log(3)]]]], np.float32)
    value = loss.similarity(responses, np.array([[[1]]], np.int32), np.ones((1, 1, 1), np.float32))
    assert float(value) == pytest.approx(-np.log(0.75))


def test_similarity_of_large_responses_is_finite():
    responses = np.array([[[[1000.0, -1000.0]]]], np.float32)
    weights = np.ones((1, 1, 1), np.float32)
    assert float(loss.similarity(responses, np.array([[[1]]], np.int32), weights)) == 2000


def test_continuity_is_the_sum_of_two_means(responses):
    assert float(loss.continuity(responses)) == pytest.approx(slow_continuity(responses), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 4, 2), (1, 3, 1, 2), (1, 1, 1, 2)])
def test_continuity_of_a_line_is_finite(shape):
    responses = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert float(loss.continuity(responses)) == pytest.approx(slow_continuity(responses), rel=1e-5)


def test_compiled_gradient_matches_finite_differences(responses):
    random = np.random.default_rng(2)
    targets = random.integers(0, 5, (2, 3, 4)).astype(np.int32)
    weights = random.random((2, 3, 4)).astype(np.float32)
    tensors = tf.constant(responses), tf.constant(targets), tf.constant(weights), tf.constant(3.0)
    similarity, continuity, gradient = loss.value_and_gradient(*tensors)
    assert float(similarity) == pytest.approx(slow_similarity(responses, targets, weights), 1e-5)
    assert float(continuity) == pytest.approx(slow_continuity(responses), 1e-5)
    direction = random.normal(size=responses.shape)
    step = 1e-5 * direction

    def at(moved):
        return slow_similarity(moved, targets, weights) + 3 * slow_continuity(moved)

    slope = (at(responses + step) - at(responses - step)) / 2e-5
    assert float((gradient.numpy() * direction).sum()) == pytest.approx(slope, rel=1e-4)
