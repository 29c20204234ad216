"""Argument checks of the scikit-learn style estimators. All raise ValueError."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike


def check_images(X: ArrayLike, n_channels: Sequence[int] | None = None) -> np.ndarray:
    """Images (n, h, w) or (n, h, w, c) as (n, h, w, c), uint8 or float32 in [0, 1].

    n_channels: the values allowed for c, any if None; without a channel axis c is 1.
    """
    X = np.asarray(X)
    is_allowed = n_channels is None or X.shape[3:] == () or X.shape[3] in n_channels
    if X.ndim not in (3, 4) or 0 in X.shape or not is_allowed:
        channels = f" with {' or '.join(map(str, n_channels))} channels" if n_channels else ""
        raise ValueError(f"X is {X.shape}: expected (n, h, w) or (n, h, w, c){channels}")
    if X.dtype.kind == "f":
        X = X.astype(np.float32)
        if not (X.min() >= 0 and X.max() <= 1):  # also true for NaN
            raise ValueError(f"X has values of {X.min():.4g} to {X.max():.4g}: expected 0 to 1")
    elif X.dtype != np.uint8:
        raise ValueError(f"X is {X.dtype}: expected uint8, or floats from 0 to 1")
    return X.reshape(*X.shape[:3], -1)


def check_choice(name: str, value: object, choices: Any) -> None:
    """Checks that the parameter `name` has one of the values of a typing.Literal."""
    if value not in get_args(choices):
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(get_args(choices))}")
