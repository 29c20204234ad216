"""Deep Clustering for Unsupervised Learning of Visual Features (Caron et al., ECCV 2018)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deepcluster_torch.estimator import DeepCluster

__all__ = ["DeepCluster"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deepcluster_torch import estimator  # loads PyTorch, which evaluate.py does without

    return getattr(estimator, name)
