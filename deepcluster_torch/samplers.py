"""Which images an epoch of training meets, and in which order: indices into the data set.

The label of index i is assignments[i], always: the data set is never re-ordered.
"""

from typing import Literal

from torch import Generator, Tensor

Sampler = Literal["uniform", "natural", "released"]


def draw(name: Sampler, assignments: Tensor, n_draws: int, generator: Generator) -> Tensor:
    """The indices (n_draws,) of an epoch by the sampler of that name; assignments (n,) int64."""
    raise NotImplementedError


def uniform(assignments: Tensor, n_draws: int, generator: Generator) -> Tensor:
    """Every non-empty cluster equally often, to within one draw, in random order.

    Inside a cluster no image comes twice before all came once.
    """
    raise NotImplementedError


def natural(assignments: Tensor, n_draws: int, generator: Generator) -> Tensor:
    """Every image equally often, to within one draw."""
    raise NotImplementedError


def released(assignments: Tensor, n_draws: int, generator: Generator) -> Tensor:
    """What the authors' released code draws, which is not uniform; for ablation."""
    raise NotImplementedError
