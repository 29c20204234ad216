import pytest
import torch

from common import UserError
from deepcluster_torch.cluster.kmeans import kmeans
from deepcluster_torch.cluster.whitening import Whitening


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def correlated(n, d, seed=0):
    """Points whose directions differ in variance by a factor of 100, away from the origin."""
    mixing = torch.randn(d, d, generator=generator(seed)) * torch.logspace(0, -1, d)
    return torch.randn(n, d, generator=generator(seed + 1)) @ mixing + 3


@pytest.mark.parametrize(("n", "d", "p"), [(500, 20, 20), (500, 20, 7), (3000, 1500, 16)])
def test_whitened_points_are_uncorrelated_with_variance_1(n, d, p):
    points = correlated(n, d)
    mean, projection = Whitening.fit(points, p)
    assert projection.shape == (d, p)
    covariance = torch.cov(((points - mean) @ projection).T)
    torch.testing.assert_close(covariance, torch.eye(p), atol=2e-3, rtol=0)  # float32


def test_iterated_axes_have_the_largest_variance():
    points = correlated(1600, 1200)  # above MAX_EXACT: found by iteration
    whitening = Whitening.fit(points, 8, power=0)
    kept = torch.linalg.vector_norm((points - points.mean(0)) @ whitening.projection).square()
    largest = torch.linalg.svdvals((points - points.mean(0)).double())[:8].square().sum()
    assert 0.999 * largest < kept < 1.001 * largest


def test_power_0_keeps_distances():
    points = correlated(50, 6)
    mean, projection = Whitening.fit(points, 6, power=0)
    rotated = (points - mean) @ projection
    torch.testing.assert_close(torch.pdist(rotated), torch.pdist(points), rtol=1e-4, atol=1e-4)


def test_rows_have_length_1_and_the_mean_stays_0():
    points = correlated(100, 10)
    whitening = Whitening.fit(points, 5)
    torch.testing.assert_close(whitening(points).norm(dim=1), torch.ones(100))
    assert (whitening(whitening.mean[None]) == 0).all()


@pytest.mark.parametrize(("n", "d"), [(5, 300), (2, 3), (40, 2000)])
def test_n_points_have_at_most_n_minus_1_components(n, d):
    points = torch.randn(n, d, generator=generator())
    whitening = Whitening.fit(points, 256)
    assert whitening.projection.shape == (d, n - 1)
    assert whitening(points).isfinite().all()


def test_axes_without_variance_are_dropped():
    points = torch.randn(200, 6, generator=generator())
    points[:, 2], points[:, 4] = 7, points[:, 0]  # a constant and a copy
    assert Whitening.fit(points, 6).projection.shape == (6, 4)


def test_equal_points_become_0():
    points = torch.full((20, 5), 0.3)
    assert (Whitening.fit(points)(points) == 0).all()


def test_nan_in_the_features_is_refused_with_the_image():
    points = torch.zeros(10, 3)
    points[4, 1] = torch.nan
    for step in (Whitening.fit, lambda points: kmeans(points, 2)):
        with pytest.raises(UserError, match="features of 1 of 10 images are NaN.*is number 4"):
            step(points)
