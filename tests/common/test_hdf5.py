import pickle

import h5py
import numpy as np
import pytest

from common import UserError, hdf5
from tests.entry_scripts import PickleBomb


@pytest.fixture
def saved(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "n": np.array(7)}
    hdf5.save(tmp_path / "w.h5", arrays)
    return tmp_path / "w.h5", arrays


def test_load_returns_the_saved_arrays(saved):
    path, arrays = saved
    loaded = hdf5.load(path, arrays)
    assert loaded.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(loaded[name], value)
        assert loaded[name].dtype == value.dtype


def test_nan_is_refused_and_not_written(tmp_path):
    with pytest.raises(UserError, match="b became NaN or infinite"):
        hdf5.save(tmp_path / "w.h5", {"a": np.ones(2), "b": np.array([1, np.nan])})
    assert not (tmp_path / "w.h5").exists()


@pytest.mark.parametrize(
    ("shapes", "difference"),
    [
        ({"a": (3, 2), "n": ()}, r"a is \(2, 3\), the config expects \(3, 2\)"),
        ({"a": (2, 3)}, r"n is \(\), the config expects absent"),
        ({"a": (2, 3), "b": (1,), "n": ()}, r"b is absent, the config expects \(1,\)"),
    ],
)
def test_load_refuses_other_arrays_with_the_first_difference(saved, shapes, difference):
    with pytest.raises(UserError, match=difference):
        hdf5.load(saved[0], {name: np.empty(shape) for name, shape in shapes.items()})


def test_read_refuses_other_files_without_executing_them(tmp_path):
    bomb = PickleBomb(tmp_path / "harm")
    (tmp_path / "pickle.h5").write_bytes(pickle.dumps(bomb))
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("a")
    for name in ("pickle.h5", "group.h5", "absent.h5"):
        with pytest.raises(UserError, match=f"{name} is not a readable checkpoint"):
            hdf5.read(tmp_path / name)
    assert not bomb.path.exists()
