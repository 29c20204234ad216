"""Global and local views of a batch."""

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
