import numpy as np
import pytest
import torch

from common import UserError
from dti_torch import config, data


def numbered(n):
    """Images (n, 1, 1, 1) whose pixel is their index."""
    return torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)


def order(n, batch_size, **options):
    options = {"seed": 0, "epoch": 0} | options
    return [indices.tolist() for _, indices in data.batches(numbered(n), batch_size, **options)]


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (12, 4), (7, 2), (9, 4), (3, 8), (2, 2)])
def test_epoch_has_every_image_once_and_no_batch_of_one(n, batch_size):
    batches = order(n, batch_size)
    assert sorted(sum(batches, [])) == list(range(n))
    assert min(map(len, batches)) >= 2
    assert max(map(len, batches)) <= batch_size + 1


def test_batches_are_floats_with_their_indices():
    for images, indices in data.batches(numbered(10), 4, seed=0, epoch=0):
        assert images.dtype == torch.float32
        assert torch.equal(images.flatten(), indices / 255)


def test_batch_order_depends_on_seed_and_epoch_only():
    first = order(50, 8)
    torch.rand(3)
    assert order(50, 8) == first
    assert order(50, 8, epoch=1) != first
    assert order(50, 8, seed=1) != first


@pytest.mark.parametrize("first", [0, 2, 5, 6])
def test_epoch_continues_at_a_given_batch(first):
    assert order(21, 4, first=first) == order(21, 4)[first:]  # five batches, the last of five


def test_to_device_and_to_float_give_channels_first_in_0_1():
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    tensor = data.to_device(images, torch.device("cpu"))
    assert tensor.shape == (2, 3, 3, 4) and tensor[1, 2, 0, 3] == images[1, 0, 3, 2]
    assert data.to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == [
        0,
        pytest.approx(0.2),
        1,
    ]


def test_colorize_is_deterministic_with_maximum_255():
    gray = np.random.default_rng(0).integers(256, size=(20, 5, 6, 1), dtype=np.uint8)
    colored = data.colorize(gray)
    assert colored.shape == (20, 5, 6, 3) and colored.dtype == np.uint8
    assert (colored.max((1, 2, 3)) == 255).all()
    assert np.array_equal(data.colorize(gray), colored)
    assert np.array_equal(data.colorize(gray[:7]), colored[:7])  # depends on the index only


def test_colorize_gives_one_foreground_and_one_background_color():
    gray = np.zeros((8, 4, 4, 1), np.uint8)
    gray[:, 1:3, 1:3] = 255
    for image in data.colorize(gray):
        assert len(np.unique(image[1:3, 1:3].reshape(-1, 3), axis=0)) == 1
        assert len(np.unique(image.reshape(-1, 3), axis=0)) == 2


def test_colorize_rejects_rgb_images():
    with pytest.raises(UserError, match="gray images, found 3 channels"):
        data.colorize(np.zeros((1, 4, 4, 3), np.uint8))


def test_subset_is_fixed_with_matching_labels_and_paths():
    everything = data.load(config.Dataset(name="digits"))
    part = data.load(config.Dataset(name="digits", n_images=40))
    assert part.images.shape == (40, 8, 8, 1) and len(set(part.paths)) == 40
    for image, label, path in zip(part.images, part.labels, part.paths, strict=True):
        i = everything.paths.index(path)
        assert np.array_equal(everything.images[i], image) and everything.labels[i] == label
    assert data.load(config.Dataset(name="digits", n_images=40)).paths == part.paths


def test_subset_larger_than_the_dataset_is_an_error():
    with pytest.raises(UserError, match="n_images is 1798: the dataset has 1797 images"):
        data.load(config.Dataset(name="digits", n_images=1798))
