"""Normalised cuts against their definition, and on graphs whose cut is known."""

import numpy as np
import pytest
from scipy.linalg import eigh

from tests.unsup_seg_torch import dense
from unsup_seg_torch import spectral


@pytest.fixture
def blocks():
    """Three blocks of points, strongly tied inside and weakly to each other, in mixed order."""
    random = np.random.default_rng(0)
    truth = random.permutation(np.repeat([0, 1, 2], [20, 30, 10]))
    ties = np.where(truth[:, None] == truth, 1.0, 0.01) * random.uniform(0.5, 1, (60, 60))
    return (ties + ties.T) / 2, truth


def same(labels, truth):
    """Whether two labellings differ by names alone."""
    return len(set(zip(labels, truth, strict=True))) == len(set(labels)) == len(set(truth))


def test_ties_are_those_of_the_definition():
    image = 0.5 + 0.1 * np.random.default_rng(0).random((6, 7, 3))
    found = spectral.affinities(image, radius=4, sigma=0.2, sigma_position=3).toarray()
    expected = dense.weight_matrix(
        image.transpose(2, 0, 1), radius=4, sigma_intensity=0.2, sigma_position=3
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_radius_beyond_the_picture_is_the_picture():
    features = np.random.default_rng(0).random((3, 4, 2))
    assert spectral.affinities(features, radius=50).nnz == 12 * 12


@pytest.mark.parametrize("limit", [1200, 0])
def test_eigenvectors_solve_the_problem_dense_and_sparse(monkeypatch, limit):
    monkeypatch.setattr(spectral, "DENSE", limit)
    ties = spectral.affinities(np.random.default_rng(0).random((9, 8, 3)), sigma=0.5)
    values, vectors = spectral.eigenvectors(ties, 4)
    degrees = np.diag(ties.toarray().sum(1))
    expected = eigh(degrees - ties.toarray(), degrees, subset_by_index=(0, 3), eigvals_only=True)
    np.testing.assert_allclose(values, expected, atol=1e-4)  # eigsh stops there
    residual = (degrees - ties.toarray()) @ vectors - degrees @ vectors * values
    assert np.abs(residual).max() < 1e-3 * degrees.max()
    assert np.ptp(vectors[:, 0]) < 1e-3


def test_the_cut_is_what_leaves_over_what_there_is():
    ties = np.array([[1, 2, 0], [2, 1, 1], [0, 1, 1.0]])
    # {0, 1} | {2}: one tie of 1 is cut; the sides have 3 + 4 and 2
    assert spectral.normalised_cut(ties, np.array([0, 0, 1])) == pytest.approx(1 / 7 + 1 / 2)
    assert spectral.normalised_cut(ties, np.zeros(3, int)) == pytest.approx(0)


def test_two_ways_part_the_weakest_ties(blocks):
    ties, truth = blocks
    keep = truth < 2
    labels, cut = spectral.two_way(ties[np.ix_(keep, keep)])
    assert same(labels, truth[keep])
    assert cut == pytest.approx(spectral.normalised_cut(ties[np.ix_(keep, keep)], truth[keep]))


def test_k_ways_find_the_blocks(blocks):
    ties, truth = blocks
    assert same(spectral.k_way(ties, 3), truth)


def test_a_picture_of_three_colours_falls_into_three():
    truth = np.zeros((16, 18), int)
    truth[:, 9:], truth[10:] = 1, 2
    colours = np.array([[0.1, 0.1, 0.1], [0.8, 0.2, 0.2], [0.3, 0.8, 0.9]])[truth]
    noisy = colours + np.random.default_rng(0).normal(0, 0.02, colours.shape)
    labels = spectral.segment(noisy, 3)
    assert labels.shape == truth.shape and same(labels.ravel(), truth.ravel())


def test_other_features_than_colours_serve():
    truth = np.zeros((8, 10), int)
    truth[3:] = 1
    probabilities = np.eye(5)[truth]
    assert same(spectral.segment(probabilities, 2, sigma=0.5).ravel(), truth.ravel())


def test_more_segments_than_points_are_the_points():
    assert len(np.unique(spectral.segment(np.random.default_rng(0).random((2, 2, 3)), 9))) == 4


def test_the_same_picture_twice_gives_the_same_segments():
    features = np.random.default_rng(0).random((40, 40, 3))
    assert np.array_equal(spectral.segment(features, 4), spectral.segment(features, 4))


def test_eigenvectors_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="5 eigenvectors of 3 points"):
        spectral.eigenvectors(np.ones((3, 3)), 5)
