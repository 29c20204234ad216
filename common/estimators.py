"""Argument checks of the scikit-learn style estimators, which raise ValueError, and a warning."""

import warnings
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning


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


def check_labels(y: ArrayLike, n: int, n_classes: int = 1) -> np.ndarray:
    """Labels (n,) of n images: integers or strings, at least n_classes different ones."""
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise ValueError(f"X has {n} images, y labels of shape {labels.shape}: expected ({n},)")
    if labels.dtype.kind in "OT" and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    labels = labels if labels.dtype.kind == "U" else check_integers("y", labels)
    n_found = len(np.unique(labels))
    if n_found < n_classes:
        raise ValueError(f"the number of classes in y is {n_found}: expected {n_classes} or more")
    return labels


def check_integers(name: str, values: np.ndarray) -> np.ndarray:
    """Integers, Booleans, or floats that are whole numbers, which become int64."""
    if values.dtype.kind == "f":
        invalid = values[~((np.abs(values) < 2**53) & (values == np.rint(values)))]  # also NaN
        if invalid.size:
            raise ValueError(f"{name} has the label {invalid[0]}: expected integers")
        return values.astype(np.int64)
    if values.dtype.kind not in "iub":
        raise ValueError(f"{name} is of type {values.dtype}: expected integers")
    return values


def warn(message: str) -> None:
    """Warns, unless the message is empty, of data in which an estimator cannot find its clusters.

    Called by `fit`, whose caller the warning names.
    """
    if message:
        warnings.warn(message, ConvergenceWarning, stacklevel=3)


def check_choice(name: str, value: object, choices: Any) -> None:
    """Checks that the parameter `name` has one of the values of a typing.Literal."""
    if value not in get_args(choices):
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(get_args(choices))}")
