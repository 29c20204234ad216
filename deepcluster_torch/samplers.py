"""Which images an epoch of training meets, and in which order: indices into the data set.

The label of index i is assignments[i], always: the data set is never re-ordered. The authors'
released code re-orders it, cluster by cluster, and there the two kinds of index were mixed up.
"""

from typing import Literal

import torch
from torch import Generator, Tensor

Sampler = Literal["uniform", "natural", "released"]


def draw(name: Sampler, assignments: Tensor, n_draws: int, generator: Generator) -> Tensor:
    """The indices (n_draws,) of an epoch by the sampler of that name; assignments (n,) int64.

    On the CPU, as the generator. They depend on these four arguments alone.
    """
    samplers = {"uniform": uniform, "natural": natural, "released": released}
    return samplers[name](assignments.cpu(), n_draws, generator)


def uniform(assignments: Tensor, n_draws: int, generator: Generator) -> Tensor:
    """Every non-empty cluster equally often, to within one draw, in random order.

    Inside a cluster no image comes twice before all came once. (Paper, section 3.3; the authors
    draw with replacement where a cluster is too small.)
    """
    clusters, sizes = assignments.unique(return_counts=True)
    n_clusters = len(clusters)
    # as many draws of each, and one more of some that chance chooses
    quotas = torch.full((n_clusters,), n_draws // n_clusters)
    quotas[torch.randperm(n_clusters, generator=generator)[: n_draws % n_clusters]] += 1
    # the images cluster by cluster, shuffled inside of each
    shuffled = torch.randperm(len(assignments), generator=generator)
    members = shuffled[assignments[shuffled].argsort(stable=True)]
    starts = sizes.cumsum(0) - sizes
    of_draw = torch.arange(n_clusters).repeat_interleave(quotas)  # (n_draws,)
    place = torch.arange(n_draws) - (quotas.cumsum(0) - quotas)[of_draw]
    drawn = members[starts[of_draw] + place % sizes[of_draw]]
    return drawn[torch.randperm(n_draws, generator=generator)]


def natural(assignments: Tensor, n_draws: int, generator: Generator) -> Tensor:
    """Every image equally often, to within one draw."""
    n = len(assignments)
    rounds = [torch.randperm(n, generator=generator) for _ in range(-(-n_draws // n))]
    return torch.cat(rounds)[:n_draws]


def released(assignments: Tensor, n_draws: int, generator: Generator) -> Tensor:
    """What the authors' released code draws, which is not uniform; for ablation.

    There the uniform sampler gives indices of images, but they are used as positions in a list that
    is ordered by cluster. Each image keeps its label. Which images come is another matter: those at
    the positions that happen to have the number of an image of a small cluster come often, and a
    cluster comes about as often as it is large.
    """
    listed = assignments.argsort(stable=True)
    return listed[uniform(assignments, n_draws, generator)]
