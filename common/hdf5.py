"""Checkpoints of arrays by name in HDF5, which holds numbers and nothing that could be executed."""

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
    """What `save` wrote; raises UserError for anything else."""
    try:
        with h5py.File(path, "r") as file:
            return {name: dataset[()] for name, dataset in file.items()}
    except (OSError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path} is not a readable checkpoint: {error}") from None


def load(path: Path, expected: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """As `read`; raises UserError as `compare_shapes`."""
    saved = read(path)
    compare_shapes(path, saved, expected)
    return saved


def compare_shapes(path: Path, saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises UserError with the first difference; arrays, tensors or variables by name.

    The torch papers' checkpoints, which are safetensors, are compared by it, too.
    """
    for name in sorted(saved.keys() | expected.keys()):
        found, wanted = (
            tuple(of[name].shape) if name in of else "absent" for of in (saved, expected)
        )
        if found != wanted:
            raise UserError(
                f"{path} is of another model: {name} is {found}, the config expects {wanted}"
            )
