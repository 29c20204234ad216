"""Global and local views of a batch."""

import numpy as np
import pytest
import torch

from tests.unsup_seg_torch.dino.tiny import colored_squares, make_config
from unsup_seg_torch.dino import config, data


@pytest.fixture
def pixels():
    return colored_squares()


def test_batch_has_two_global_views_and_the_local_ones(pixels):
    views = next(data.batches(pixels, make_config(n_small=3).training, 0))
    assert [view.shape for view in views] == [(8, 3, 16, 16)] * 2 + [(8, 3, 8, 8)] * 3
    assert all(0 <= float(view.min()) and float(view.max()) <= 1 for view in views)


def test_epoch_continues_from_any_batch(pixels):
    training = make_config().training
    whole, rest = (list(data.batches(pixels, training, 1, first)) for first in (0, 1))
    assert len(whole) == data.n_batches(training, 24) == 3
    for expected, views in zip(whole[1:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, views, strict=True))
    assert data.n_batches(training, 5) == data.n_batches(training, 15) == 1


def test_view_of_the_whole_image_without_augmentation_is_the_image(pixels):
    training = config.Training(large=20, flip=False, color=0.0, blur=0.0)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    views = data.view(images, training, 20, (1.0, 1.0), 0, torch.Generator().manual_seed(0))
    # a crop of the whole area is clipped, unless its aspect ratio is near 1: then it is the image
    is_same = (views - images / 255).abs().amax((1, 2, 3)) < 0.2
    assert views.shape == images.shape and is_same.any()


def blur(images, sigma):
    """Each pixel of (b, s, s) is the mean of its row, then column, with Gaussian weights."""
    positions = np.arange(images.shape[1])
    weights = np.exp(-((positions[:, None] - positions) ** 2) / (2 * sigma**2))
    weights /= weights.sum(1, keepdims=True)
    return weights @ images @ weights.T


@pytest.mark.parametrize("size", [12, 32])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_blur_is_in_pixels_of_the_view_whatever_its_size(size, strength):
    """The authors blur the view by 0.1 to 2 pixels, whether it has 224 or 96 of them."""
    noise = 255 * torch.rand(12, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    sharp, blurred = (
        data.view(
            noise,
            config.Training(color=0.0, blur=factor),
            size,
            (0.3, 0.9),
            0,  # of which every view is blurred
            torch.Generator().manual_seed(1),
        )[:, 0].double()
        for factor in (0.0, strength)
    )
    candidates = np.arange(0.05, 2.5, 0.01)
    errors = np.array(
        [np.abs(blur(sharp.numpy(), s) - blurred.numpy()).max((1, 2)) for s in candidates]
    )
    assert errors.min(0).max() < 0.01
    sigmas = candidates[errors.argmin(0)]
    # uniform between 0.1 and 2: of twelve the largest is above 1.5 with probability 0.97
    assert 1.5 * strength < max(sigmas) <= 2.01 * strength and min(sigmas) < 1.0 * strength
