"""Checkpoints of arrays by name in HDF5 files, which cannot hold executable code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from common import UserError


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays by name; raises UserError, and writes nothing, if one is NaN or infinite."""
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise UserError(f"{name} became NaN or infinite: lower training.lr")
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file.create_dataset(name, data=value)


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file written by `save`; raises UserError for any other file."""
    try:
        with h5py.File(path, "r") as file:
            return {name: dataset[()] for name, dataset in file.items()}
    except (OSError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path} is not a readable checkpoint: {error}") from None


def load(path: Path, expected: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a file; raises UserError as `read` and `compare_shapes`."""
    arrays = read(path)
    compare_shapes(path, arrays, expected)
    return arrays


def compare_shapes(path: Path, saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises UserError with the first name that is missing, or whose shape differs.

    path: the file of the saved arrays, tensors or variables.
    """
    for name in sorted(saved.keys() | expected.keys()):
        shape, expected_shape = (
            tuple(arrays[name].shape) if name in arrays else "absent"
            for arrays in (saved, expected)
        )
        if shape != expected_shape:
            raise UserError(
                f"{path} is of another model: {name} is {shape}, the config expects "
                f"{expected_shape}"
            )
