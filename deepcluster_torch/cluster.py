"""The step without gradient: whitened features, k-means on them, and clusters merged to groups."""

from typing import Literal, NamedTuple

from torch import Generator, Tensor


class Whitening(NamedTuple):
    """PCA with whitening and rows of length 1 (paper, section 3.4): mean (d,), projection (d, p)."""

    mean: Tensor
    projection: Tensor

    @classmethod
    def fit(cls, points: Tensor, n_components: int = 256, power: float = -0.5) -> "Whitening":
        """Learns it from points (n, d); p is n_components, or less where they have less variance.

        Raises UserError if a point is NaN or infinite.
        """
        raise NotImplementedError

    def __call__(self, points: Tensor) -> Tensor:
        """points (n, d) -> (n, p) of length 1; a point at the mean stays 0"""
        raise NotImplementedError


class Clusters(NamedTuple):
    """centroids (k, d); of each point its nearest one (n,) and the squared distance to it (n,)."""

    centroids: Tensor
    assignments: Tensor
    distances: Tensor
    n_iterations: int
    n_reseeded: int  # centroids of empty clusters that were moved

    @property
    def objective(self) -> float:
        """The sum of the squared distances."""
        raise NotImplementedError


def kmeans(
    points: Tensor,
    n_clusters: int,
    *,
    n_iterations: int = 20,
    generator: Generator | None = None,
    centroids: Tensor | None = None,
    spherical: bool = False,
    n_starts: int = 1,
    backend: Literal["auto", "faiss", "torch"] = "auto",
) -> Clusters:
    """k-means of points (n, d) on their device; no cluster stays empty if k points differ.

    centroids (k, d): where to start, so that cluster ids keep their meaning; else k of the points.
    spherical: centroids have length 1; the points should have, too. n_starts: the best of so many.
    generator: on the CPU. backend auto: faiss on the CPU where it is installed.
    Raises UserError for fewer points than clusters, and for NaN.
    """
    raise NotImplementedError


def nearest(points: Tensor, centroids: Tensor, n: int = 1) -> tuple[Tensor, Tensor]:
    """points (b, d), centroids (k, d) -> squared distances and ids (b, n) of the n nearest."""
    raise NotImplementedError


def merge(centroids: Tensor, sizes: Tensor, n_groups: int) -> Tensor:
    """Ward's groups of clusters: centroids (k, d), sizes (k,) -> groups (k,) in 0 .. n_groups - 1.

    Group 0 is the one of cluster 0, and so on in the order of the clusters.
    """
    raise NotImplementedError
