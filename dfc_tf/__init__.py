"""Differentiable feature clustering of an image (Kim, Kanezaki, Tanaka, IEEE TIP 2020)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dfc_tf.estimator import DFC

__all__ = ["DFC"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dfc_tf import estimator  # lazily: it imports TensorFlow, evaluate.py must not

    return getattr(estimator, name)
