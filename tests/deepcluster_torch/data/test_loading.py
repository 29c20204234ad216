import numpy as np
import pytest

from common import UserError
from deepcluster_torch.config import Dataset
from deepcluster_torch.data import loading
from deepcluster_torch.data.batches import batches


def test_held_out_images_are_not_trained_on():
    dataset, held_out = loading.load(Dataset(held_out=0.25))
    assert (len(dataset.paths), len(held_out.paths)) == (1348, 449)
    assert not set(dataset.paths) & set(held_out.paths)
    assert len(dataset.images) == len(dataset.labels) == 1348


def test_subset_is_fixed_and_in_order():
    first, second = (loading.load(Dataset(n_images=50))[0] for _ in range(2))
    assert first.paths == second.paths == sorted(first.paths)


def test_indexed_images_equal_those_of_the_array(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
    array.tofile(tmp_path / "pixels")
    mapped = np.memmap(tmp_path / "pixels", np.uint8, "r", shape=array.shape)
    indices = np.array([7, 2, 5])
    images = loading.IndexedImages(loading.IndexedImages(mapped, np.arange(9)), indices)
    assert (len(images), images.shape, images.dtype) == (3, (3, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(images[1], array[2])
    np.testing.assert_array_equal(images[1:], array[[2, 5]])
    batch, _ = next(batches(images, 2))
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), array[indices])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n_images": 1798}, "dataset.n_images is 1798, the dataset has 1797"),
        ({"held_out": 1e-9}, "dataset.held_out is 1e-09"),
        ({"held_out": 0.99999}, "dataset.held_out is 0.99999"),
    ],
)
def test_split_without_images_is_refused(options, reason):
    with pytest.raises(UserError, match=reason):
        loading.load(Dataset(**options))
