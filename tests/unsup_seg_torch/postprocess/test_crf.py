"""The dense CRF against all pairs of pixels, and against pydensecrf if it is installed."""

import numpy as np
import pytest
import torch

from tests.unsup_seg_torch import reference
from unsup_seg_torch.postprocess import crf


@pytest.fixture
def halves():
    """Two noisy halves, and probabilities that are right for two of three pixels."""
    random = np.random.default_rng(0)
    truth = np.zeros((24, 30), int)
    truth[:, 13:] = 1
    image = np.array([[60, 90, 40], [150, 120, 160]])[truth] + random.normal(0, 6, (24, 30, 3))
    labels = np.where(random.random(truth.shape) < 2 / 3, truth, 1 - truth)
    probabilities = np.where(np.arange(2)[:, None, None] == labels, 0.7, 0.3)
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8), probabilities, truth


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_splat_weights_of_a_point_sum_to_one(d):
    lattice = crf.Lattice(np.random.default_rng(0).normal(size=(500, d)))
    np.testing.assert_allclose(lattice.weights.sum(1), 1, atol=1e-6)
    assert lattice.weights.min() >= -1e-6


@pytest.mark.parametrize("d", [1, 2, 5])
def test_filter_is_the_gaussian_over_all_pairs(d):
    random = np.random.default_rng(0)
    features, values = random.random((1500, d)) * 2.5, random.random((1500, 2)).astype(np.float32)
    filtered = crf.Filter(features)(torch.from_numpy(values)).numpy()
    expected = reference.gaussian_filter(features, values)
    # the lattice's kernel is piecewise linear, an approximation of the Gaussian
    assert np.abs(filtered / expected - 1).mean() < 0.03


def test_mean_field_is_that_of_all_pairs(halves):
    image, probabilities, _ = halves
    options = {"position": 12.0, "color": 20.0, "appearance_weight": 4}
    options |= {"smoothness_position": 2.0, "smoothness_weight": 1}
    refined = crf.refine(probabilities, image, 5, **options)
    expected = reference.mean_field(probabilities, image, 5, **options)
    assert np.mean(refined.argmax(0) == expected.argmax(0)) > 0.99
    assert np.abs(refined - expected).mean() < 0.02
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


def test_noisy_labels_are_refined_to_the_color_edge(halves):
    image, probabilities, truth = halves
    assert np.mean(probabilities.argmax(0) == truth) < 0.75
    assert np.mean(crf.refine(probabilities, image).argmax(0) == truth) > 0.99


def test_0_iterations_change_nothing(halves):
    image, probabilities, _ = halves
    np.testing.assert_allclose(crf.refine(probabilities, image, 0), probabilities, atol=1e-6)


def test_probabilities_of_0_and_1_stay_finite(halves):
    image, probabilities, _ = halves
    certain = np.stack([*(probabilities > 0.5).astype(float), np.zeros(image.shape[:2])])
    refined = crf.refine(certain, image)
    assert np.isfinite(refined).all() and refined[2].max() < 0.01


def test_image_of_one_color_or_one_pixel_is_refined():
    for h, w in ((1, 1), (1, 9), (12, 9)):
        image = np.full((h, w, 3), 200, np.uint8)
        assert np.isfinite(crf.refine(np.full((3, h, w), 1 / 3), image)).all()


def test_different_sizes_and_too_distant_features_are_refused():
    with pytest.raises(ValueError, match="the image is"):
        crf.refine(np.ones((2, 4, 5)) / 2, np.zeros((5, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="too large a range"):
        crf.Lattice(np.random.default_rng(0).random((4, 5)) * 1e9)


def test_marginals_equal_pydensecrf(halves):
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    image, probabilities, _ = halves
    h, w = image.shape[:2]
    authors = densecrf.DenseCRF2D(w, h, 2)
    unary = -np.log(np.maximum(probabilities, crf.MIN_PROBABILITY))
    authors.setUnaryEnergy(np.ascontiguousarray(unary.reshape(2, -1).astype(np.float32)))
    authors.addPairwiseGaussian(sxy=crf.SMOOTHNESS_POSITION, compat=crf.SMOOTHNESS_WEIGHT)
    authors.addPairwiseBilateral(
        sxy=crf.POSITION, srgb=crf.COLOR, rgbim=image.copy(), compat=crf.APPEARANCE_WEIGHT
    )
    expected = np.array(authors.inference(5)).reshape(2, h, w)
    refined = crf.refine(probabilities, image, 5)
    # the same lattice, in float32
    np.testing.assert_allclose(refined, expected, atol=1e-3)
