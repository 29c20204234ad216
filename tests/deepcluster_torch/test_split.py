"""Which images a run learns from."""

import numpy as np
import pytest

from common import UserError
from deepcluster_torch import data, split
from deepcluster_torch.config import Dataset


def test_held_out_images_are_never_trained_on():
    found, held_out = split.load(Dataset(held_out=0.25))
    assert (len(found.paths), len(held_out.paths)) == (1348, 449)
    assert not set(found.paths) & set(held_out.paths)
    assert len(found.images) == len(found.labels) == 1348


def test_a_subset_is_the_same_every_time_and_in_order():
    first, second = (split.load(Dataset(n_images=50))[0] for _ in range(2))
    assert first.paths == second.paths == sorted(first.paths)


def test_rows_of_a_map_are_those_of_the_array(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
    array.tofile(tmp_path / "pixels")
    mapped = np.memmap(tmp_path / "pixels", np.uint8, "r", shape=array.shape)
    chosen = np.array([7, 2, 5])
    rows = split.Rows(split.Rows(mapped, np.arange(9)), chosen)
    assert (len(rows), rows.shape, rows.dtype) == (3, (3, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(rows[1], array[2])
    np.testing.assert_array_equal(rows[1:], array[[2, 5]])
    batches = [batch for batch, _ in data.batches(rows, 2)]
    np.testing.assert_array_equal(batches[0].permute(0, 2, 3, 1).numpy(), array[chosen])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n_images": 1798}, "dataset.n_images is 1798, the data set has 1797"),
        ({"held_out": 1e-9}, "dataset.held_out is 1e-09"),
        ({"held_out": 0.99999}, "dataset.held_out is 0.99999"),
    ],
)
def test_a_split_that_leaves_nothing_is_refused(options, reason):
    with pytest.raises(UserError, match=reason):
        split.load(Dataset(**options))
