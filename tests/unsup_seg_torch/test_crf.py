"""The dense CRF against all pairs of pixels written out, and against pydensecrf where it is."""

import numpy as np
import pytest
import torch

from tests.unsup_seg_torch import dense
from unsup_seg_torch import crf


@pytest.fixture
def scene():
    """Two flat halves with noise, and probabilities that are right two times out of three."""
    random = np.random.default_rng(0)
    truth = np.zeros((24, 30), int)
    truth[:, 13:] = 1
    image = np.array([[60, 90, 40], [150, 120, 160]])[truth] + random.normal(0, 6, (24, 30, 3))
    said = np.where(random.random(truth.shape) < 2 / 3, truth, 1 - truth)
    probabilities = np.where(np.arange(2)[:, None, None] == said, 0.7, 0.3)
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8), probabilities, truth


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_points_are_shared_out_whole(d):
    lattice = crf.Lattice(np.random.default_rng(0).normal(size=(500, d)))
    np.testing.assert_allclose(lattice.weights.sum(1), 1, atol=1e-6)
    assert lattice.weights.min() >= -1e-6


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_filter_is_the_gaussian_over_all_pairs(d):
    random = np.random.default_rng(0)
    features, values = random.random((1500, d)) * 2.5, random.random((1500, 2)).astype(np.float32)
    found = crf.Filter(features)(torch.from_numpy(values)).numpy()
    expected = dense.gaussian_filter(features, values)
    # the lattice's kernel is a sum of linear pieces, near a Gaussian and not one
    assert np.abs(found / expected - 1).mean() < 0.03


def test_mean_field_is_that_of_all_pairs(scene):
    image, probabilities, _ = scene
    constants = {"position": 12.0, "colour": 20.0, "near": 2.0}
    found = crf.refine(
        probabilities, image, 5, appearance_weight=4, smoothness_weight=1, **constants
    )
    expected = dense.mean_field(probabilities, image, 5, weights=(4, 1), **constants)
    assert np.mean(found.argmax(0) == expected.argmax(0)) > 0.99
    assert np.abs(found - expected).mean() < 0.02
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_noisy_labels_end_at_the_edge_of_colour(scene):
    image, probabilities, truth = scene
    assert np.mean(probabilities.argmax(0) == truth) < 0.75
    assert np.mean(crf.refine(probabilities, image).argmax(0) == truth) > 0.99


def test_no_iteration_changes_nothing(scene):
    image, probabilities, _ = scene
    np.testing.assert_allclose(crf.refine(probabilities, image, 0), probabilities, atol=1e-6)


def test_certain_and_empty_labels_stay_finite(scene):
    image, probabilities, _ = scene
    certain = np.stack([*(probabilities > 0.5).astype(float), np.zeros(image.shape[:2])])
    found = crf.refine(certain, image)
    assert np.isfinite(found).all() and found[2].max() < 0.01


def test_a_picture_of_one_colour_and_of_one_pixel_are_refined():
    for h, w in ((1, 1), (1, 9), (12, 9)):
        image = np.full((h, w, 3), 200, np.uint8)
        assert np.isfinite(crf.refine(np.full((3, h, w), 1 / 3), image)).all()


def test_sizes_that_differ_and_features_too_far_apart_are_refused():
    with pytest.raises(ValueError, match="the image is"):
        crf.refine(np.ones((2, 4, 5)) / 2, np.zeros((5, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="larger deviations"):
        crf.Lattice(np.random.default_rng(0).random((4, 5)) * 1e9)


def test_the_marginals_are_those_of_pydensecrf(scene):
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    image, probabilities, _ = scene
    h, w = image.shape[:2]
    theirs = densecrf.DenseCRF2D(w, h, 2)
    unary = -np.log(np.maximum(probabilities, crf.LEAST)).reshape(2, -1).astype(np.float32)
    theirs.setUnaryEnergy(np.ascontiguousarray(unary))
    theirs.addPairwiseGaussian(sxy=crf.NEAR, compat=crf.SMOOTHNESS_WEIGHT)
    theirs.addPairwiseBilateral(
        sxy=crf.POSITION, srgb=crf.COLOUR, rgbim=image.copy(), compat=crf.APPEARANCE_WEIGHT
    )
    expected = np.array(theirs.inference(5)).reshape(2, h, w)
    found = crf.refine(probabilities, image, 5)
    # the same lattice, in float32
    np.testing.assert_allclose(found, expected, atol=1e-3)
