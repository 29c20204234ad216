"""Power iteration clustering, the paper's other way to find clusters (appendix; Lin, Cohen 2010)."""

from torch import Tensor


def pic(
    points: Tensor,
    *,
    n_neighbors: int = 5,
    sigma: float = 0.2,
    alpha: float = 0.001,
    n_iterations: int = 200,
) -> Tensor:
    """Clusters (n,) int64 of whitened points (n, d), numbered 0, 1, ... without gaps.

    How many there are is found, not set.
    """
    raise NotImplementedError


def neighbors(points: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Squared distances and ids (b, n) of each point's n nearest others, exact, nearest first."""
    raise NotImplementedError
