import numpy as np
import pytest
import torch

from common import UserError
from dti_torch import config, data


def numbered(n):
    """Images (n, 1, 1, 1) whose pixel is their number."""
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)


def order(n, batch_size, **which):
    which = {"seed": 0, "epoch": 0} | which
    return [chosen.tolist() for _, chosen in data.batches(numbered(n), batch_size, **which)]


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (12, 4), (7, 2), (9, 4), (3, 8), (2, 2)])
def test_an_epoch_meets_every_image_once_and_no_image_alone(n, batch_size):
    batches = order(n, batch_size)
    assert sorted(sum(batches, [])) == list(range(n))
    assert min(map(len, batches)) >= 2
    assert max(map(len, batches)) <= batch_size + 1


def test_images_come_as_floats_with_their_index():
    for images, chosen in data.batches(numbered(10), 4, seed=0, epoch=0):
        assert images.dtype == torch.float32
        assert torch.equal(images.flatten(), chosen / 255)


def test_the_order_depends_on_seed_and_epoch_alone():
    first = order(50, 8)
    torch.rand(3)
    assert order(50, 8) == first
    assert order(50, 8, epoch=1) != first
    assert order(50, 8, seed=1) != first


@pytest.mark.parametrize("first", [0, 2, 5, 6])
def test_an_epoch_goes_on_where_it_stopped(first):
    assert order(21, 4, first=first) == order(21, 4)[first:]  # five batches, the last of five


def test_channels_go_first_and_values_to_the_unit_interval():
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    there = data.to_device(images, torch.device("cpu"))
    assert there.shape == (2, 3, 3, 4) and there[1, 2, 0, 3] == images[1, 0, 3, 2]
    assert data.to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == [
        0,
        pytest.approx(0.2),
        1,
    ]


def test_random_colours_are_always_the_same_and_reach_255():
    gray = np.random.default_rng(0).integers(256, size=(20, 5, 6, 1), dtype=np.uint8)
    colored = data.colorize(gray)
    assert colored.shape == (20, 5, 6, 3) and colored.dtype == np.uint8
    assert (colored.max((1, 2, 3)) == 255).all()
    assert np.array_equal(data.colorize(gray), colored)
    assert np.array_equal(data.colorize(gray[:7]), colored[:7])  # by index, whatever follows


def test_an_image_has_one_foreground_and_one_background_colour():
    gray = np.zeros((8, 4, 4, 1), np.uint8)
    gray[:, 1:3, 1:3] = 255
    for image in data.colorize(gray):
        assert len(np.unique(image[1:3, 1:3].reshape(-1, 3), axis=0)) == 1
        assert len(np.unique(image.reshape(-1, 3), axis=0)) == 2


def test_only_gray_images_are_coloured():
    with pytest.raises(UserError, match="gray images, found 3 channels"):
        data.colorize(np.zeros((1, 4, 4, 3), np.uint8))


def test_a_subset_is_fixed_and_keeps_labels_and_paths_in_step():
    finished_run = data.load(config.Dataset(name="digits"))
    part = data.load(config.Dataset(name="digits", n_images=40))
    assert part.images.shape == (40, 8, 8, 1) and len(set(part.paths)) == 40
    for image, label, path in zip(part.images, part.labels, part.paths, strict=True):
        i = finished_run.paths.index(path)
        assert np.array_equal(finished_run.images[i], image) and finished_run.labels[i] == label
    assert data.load(config.Dataset(name="digits", n_images=40)).paths == part.paths


@pytest.mark.parametrize("n", [0, -1, 1798])
def test_a_subset_larger_than_the_set_or_empty_is_refused(n):
    with pytest.raises(UserError, match=f"n_images is {n}, the data set has 1797"):
        data.load(config.Dataset(name="digits", n_images=n))
