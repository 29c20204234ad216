"""Normalized cuts against their definition, and on graphs whose cut is known."""

import numpy as np
import pytest
from scipy.linalg import eigh

from tests.unsup_seg_torch import reference
from unsup_seg_torch.postprocess import spectral


@pytest.fixture
def blocks():
    """Affinities (60, 60) of three blocks, strong inside and weak between them, and the blocks."""
    random = np.random.default_rng(0)
    truth = random.permutation(np.repeat([0, 1, 2], [20, 30, 10]))
    affinities = np.where(truth[:, None] == truth, 1.0, 0.01) * random.uniform(0.5, 1, (60, 60))
    return (affinities + affinities.T) / 2, truth


def are_equal(labels, truth):
    """Whether two labelings correspond one to one."""
    return len(set(zip(labels, truth, strict=True))) == len(set(labels)) == len(set(truth))


def test_affinities_equal_the_definition():
    image = 0.5 + 0.1 * np.random.default_rng(0).random((6, 7, 3))
    affinities = spectral.affinities(image, radius=4, sigma=0.2, sigma_position=3).toarray()
    expected = reference.weight_matrix(
        image.transpose(2, 0, 1), radius=4, sigma_intensity=0.2, sigma_position=3
    )
    np.testing.assert_allclose(affinities, expected, atol=1e-12)


def test_radius_beyond_the_image_connects_all_points():
    features = np.random.default_rng(0).random((3, 4, 2))
    assert spectral.affinities(features, radius=50).nnz == 12 * 12


@pytest.mark.parametrize("max_dense", [1200, 0])
def test_eigenvectors_solve_the_dense_and_the_sparse_problem(monkeypatch, max_dense):
    monkeypatch.setattr(spectral, "MAX_DENSE", max_dense)
    affinities = spectral.affinities(np.random.default_rng(0).random((9, 8, 3)), sigma=0.5)
    values, vectors = spectral.eigenvectors(affinities, 4)
    degrees = np.diag(affinities.toarray().sum(1))
    laplacian = degrees - affinities.toarray()
    expected = eigh(laplacian, degrees, subset_by_index=(0, 3), eigvals_only=True)
    np.testing.assert_allclose(values, expected, atol=1e-4)  # the tolerance of eigsh
    residual = laplacian @ vectors - degrees @ vectors * values
    assert np.abs(residual).max() < 1e-3 * degrees.max()
    assert np.ptp(vectors[:, 0]) < 1e-3


def test_normalized_cut_is_a_sum_of_fractions():
    affinities = np.array([[1, 2, 0], [2, 1, 1], [0, 1, 1.0]])
    # {0, 1} | {2}: an affinity of 1 is cut; the sides have 3 + 4 and 2
    cut = spectral.normalized_cut(affinities, np.array([0, 0, 1]))
    assert cut == pytest.approx(1 / 7 + 1 / 2)
    assert spectral.normalized_cut(affinities, np.zeros(3, int)) == pytest.approx(0)


def test_two_way_cuts_the_weakest_affinities(blocks):
    affinities, truth = blocks
    is_kept = truth < 2
    affinities, truth = affinities[np.ix_(is_kept, is_kept)], truth[is_kept]
    labels, cut = spectral.two_way(affinities)
    assert are_equal(labels, truth)
    assert cut == pytest.approx(spectral.normalized_cut(affinities, truth))


def test_k_way_finds_the_blocks(blocks):
    affinities, truth = blocks
    assert are_equal(spectral.k_way(affinities, 3), truth)


def test_image_of_three_colors_has_three_segments():
    truth = np.zeros((16, 18), int)
    truth[:, 9:], truth[10:] = 1, 2
    colors = np.array([[0.1, 0.1, 0.1], [0.8, 0.2, 0.2], [0.3, 0.8, 0.9]])[truth]
    noisy = colors + np.random.default_rng(0).normal(0, 0.02, colors.shape)
    labels = spectral.segment(noisy, 3)
    assert labels.shape == truth.shape and are_equal(labels.ravel(), truth.ravel())


def test_probabilities_are_segmented_like_colors():
    truth = np.zeros((8, 10), int)
    truth[3:] = 1
    probabilities = np.eye(5)[truth]
    labels = spectral.segment(probabilities, 2, sigma=0.5)
    assert are_equal(labels.ravel(), truth.ravel())


def test_more_segments_than_points_are_the_points():
    assert len(np.unique(spectral.segment(np.random.default_rng(0).random((2, 2, 3)), 9))) == 4


def test_same_image_gives_the_same_segments():
    features = np.random.default_rng(0).random((40, 40, 3))
    assert np.array_equal(spectral.segment(features, 4), spectral.segment(features, 4))


def test_more_eigenvectors_than_points_are_refused():
    with pytest.raises(ValueError, match="5 eigenvectors of 3 points"):
        spectral.eigenvectors(np.ones((3, 3)), 5)
