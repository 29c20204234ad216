"""Variables in HDF5 files."""

import h5py
import numpy as np
import pytest

from common import UserError
from common.tf import checkpoint, keras, tf


def variables(value=0.0):
    return {
        "kernel": tf.Variable(np.full((2, 3), value, np.float32)),
        "step": tf.Variable(int(value)),
        "bias": keras.Variable(np.full(3, value, np.float32)),
    }


def test_load_restores_saved_variables(tmp_path):
    expected, loaded = variables(2.0), variables()
    checkpoint.save(tmp_path / "state.h5", expected)
    checkpoint.load(tmp_path / "state.h5", loaded)
    for name, variable in expected.items():
        np.testing.assert_array_equal(np.asarray(loaded[name]), np.asarray(variable))
        assert loaded[name].dtype == variable.dtype


def test_load_converts_types(tmp_path):
    with h5py.File(tmp_path / "state.h5", "w") as file:
        file["kernel"], file["step"], file["bias"] = np.ones((2, 3)), np.int64(7), np.ones(3)
    loaded = variables()
    checkpoint.load(tmp_path / "state.h5", loaded)
    assert int(loaded["step"]) == 7 and loaded["kernel"].dtype == tf.float32


def test_nan_is_not_saved(tmp_path):
    with pytest.raises(UserError, match="kernel became NaN or infinite"):
        checkpoint.save(tmp_path / "state.h5", {"kernel": tf.Variable([0.0, np.nan])})
    assert not (tmp_path / "state.h5").exists()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kernel": tf.Variable([0.0])}, r"kernel is \(1,\), the config expects \(2, 3\)"),
        ({"other": tf.Variable([0.0])}, r"other is \(1,\), the config expects absent"),
    ],
)
def test_load_of_another_model_changes_nothing(tmp_path, changed, reason):
    checkpoint.save(tmp_path / "state.h5", variables(2.0) | changed)
    loaded = variables()
    with pytest.raises(UserError, match=f"is of another model: {reason}"):
        checkpoint.load(tmp_path / "state.h5", loaded)
    assert not any(np.asarray(variable).any() for variable in loaded.values())


def test_allow_extra_ignores_unknown_but_not_missing_arrays(tmp_path):
    checkpoint.save(tmp_path / "state.h5", variables(2.0))
    bias = keras.Variable(np.zeros(3, np.float32))
    checkpoint.load(tmp_path / "state.h5", {"bias": bias}, allow_extra=True)
    assert np.asarray(bias).tolist() == [2.0] * 3
    with pytest.raises(UserError, match=r"scale is absent, the config expects \(3,\)"):
        checkpoint.load(tmp_path / "state.h5", {"scale": bias}, allow_extra=True)
