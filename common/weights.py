"""Checkpoints of arrays by name in HDF5, which holds numbers and nothing that could be executed."""

from pathlib import Path

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
        raise UserError(f"{path} is no readable checkpoint: {error}") from None


def load(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """As `read`; raises UserError with the first difference if other arrays were expected."""
    saved = read(path)
    for name in sorted(saved.keys() | shapes.keys()):
        found = saved[name].shape if name in saved else "absent"
        expected = tuple(shapes[name]) if name in shapes else "absent"
        if found != expected:
            raise UserError(
                f"{path} is of another model: {name} is {found}, the config expects {expected}"
            )
    return saved
