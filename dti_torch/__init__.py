"""Deep Transformation-Invariant Clustering (Monnier, Groueix, Aubry, NeurIPS 2020)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dti_torch.estimator import DTIGMM, DTIKMeans

__all__ = ["DTIGMM", "DTIKMeans"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dti_torch import estimator  # loads PyTorch, which evaluate.py does not need

    return getattr(estimator, name)
