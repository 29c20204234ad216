"""Variables of TensorFlow or Keras in HDF5 files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common import hdf5
from common.tf import keras, tf

Variables = Mapping[str, tf.Variable | keras.Variable]


def save(path: Path, variables: Variables) -> None:
    """Writes variables by name; raises UserError, and writes nothing, if one is NaN or infinite."""
    hdf5.save(path, {name: np.asarray(variable) for name, variable in variables.items()})


def load(path: Path, variables: Variables, allow_extra: bool = False) -> None:
    """Assigns the arrays of a file written by `save`.

    allow_extra: ignore arrays of the file that have no variable. Raises UserError with the first
    name or shape that differs, and then assigns nothing.
    """
    saved = hdf5.read(path)
    if allow_extra:
        saved = {name: saved[name] for name in variables if name in saved}
    hdf5.compare_shapes(path, saved, variables)
    for name, variable in variables.items():
        variable.assign(saved[name].astype(tf.as_dtype(variable.dtype).as_numpy_dtype))
