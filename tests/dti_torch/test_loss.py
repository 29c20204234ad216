import numpy as np
import pytest
import torch
from scipy import stats

from dti_torch import loss


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_distance_is_the_mean_squared_error():
    images = torch.zeros(1, 2, 1, 2)
    prototypes = torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]])
    assert loss.prototype_distances(images, prototypes).item() == 6 / 4  # 1 + 4 + 0 + 1


def test_pixel_weights_apply_to_all_channels():
    images, prototypes = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]])
    weights = torch.tensor([[2.0, 0.5]])
    # (2 * 1 + 0.5 * 4) + (2 * 0 + 0.5 * 1)
    assert loss.prototype_distances(images, prototypes, weights).item() == 4.5 / 4


def test_distances_broadcast_images_and_prototypes():
    images, prototypes = torch.rand(5, 3, 4, 6), torch.rand(7, 1, 3, 4, 6)
    distances = loss.prototype_distances(images, prototypes)
    assert distances.shape == (7, 5)
    torch.testing.assert_close(distances[6, 2], (images[2] - prototypes[6, 0]).square().mean())


def test_negative_log_likelihood_equals_scipy():
    rng = np.random.default_rng(0)
    images, means = rng.random((2, 4, 3, 5, 6))
    variances, weights = 0.05 + rng.random((4, 3, 5, 6)), rng.random((5, 6))
    expected = -(stats.norm.logpdf(images, means, np.sqrt(variances)) * weights).sum((1, 2, 3))
    tensors = map(torch.from_numpy, (images, means, variances, weights))
    np.testing.assert_allclose(loss.negative_log_likelihood(*tensors), expected, rtol=1e-12)


def test_likelihood_at_large_means_is_precise_in_float32():
    image = torch.full((1, 8, 8), 1000.0)  # x^2 p - 2 x m p + m^2 p would cancel
    value = loss.negative_log_likelihood(image, image, torch.full_like(image, 0.0625))
    assert value.item() == pytest.approx(-64 * stats.norm.logpdf(0, scale=0.25), rel=1e-6)


def test_responsibilities_follow_bayes_rule():
    likelihoods = torch.tensor([[0.1, 0.3], [0.2, 0.2]])
    logits = torch.tensor([3.0, 1.0]).log()  # mixing weights 3/4 and 1/4
    # 0.3 : 0.3 and 0.6 : 0.2
    expected = torch.tensor([[0.5, 0.5], [0.75, 0.25]])
    torch.testing.assert_close(loss.responsibilities(-likelihoods.log(), logits), expected)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_responsibilities_sum_to_one(scale):
    gammas = loss.responsibilities(scale * torch.randn(50, 7), torch.randn(7))
    torch.testing.assert_close(gammas.sum(1), torch.ones(50))
    assert gammas.min() >= 0


def test_gaussian_weights_have_maximum_one_and_the_given_std():
    weights = loss.gaussian_pixel_weights(5, 9, std=2.0)
    assert weights.shape == (5, 9) and weights[2, 4] == 1
    assert weights[2, 6].item() == pytest.approx(np.exp(-0.5))  # two pixels off is one std
    assert weights[0, 4] == weights[2, 2] == weights[4, 4]
    assert weights.dtype == torch.float32  # float64 would make every distance double
