"""Which images an epoch trains on, and in which order: indices into the dataset.

The dataset is never reordered, so the pseudo-label of image i is always assignments[i]. The
authors' released code reorders it by cluster and mixes up the two kinds of index.
"""

import torch
from torch import Generator, Tensor

from deepcluster_torch import config


def draw(name: config.Sampler, assignments: Tensor, n: int, generator: Generator) -> Tensor:
    """The indices (n,) of an epoch, on the CPU; assignments (n_images,) int64."""
    assignments = assignments.cpu()
    if name == "uniform":
        return uniform(assignments, n, generator)
    if name == "natural":
        return natural(assignments, n, generator)
    return released(assignments, n, generator)


def uniform(assignments: Tensor, n: int, generator: Generator) -> Tensor:
    """Draws every non-empty cluster equally often, to within one draw, in random order.

    Within a cluster no image repeats before all were drawn. (Paper, section 3.3; the authors draw
    with replacement from clusters that are too small.)
    """
    clusters, sizes = assignments.unique(return_counts=True)
    n_clusters = len(clusters)
    # equally many draws of each, and one more of random ones
    quotas = torch.full((n_clusters,), n // n_clusters)
    quotas[torch.randperm(n_clusters, generator=generator)[: n % n_clusters]] += 1
    # images by cluster, in random order within each
    shuffled = torch.randperm(len(assignments), generator=generator)
    members = shuffled[assignments[shuffled].argsort(stable=True)]
    starts = sizes.cumsum(0) - sizes
    cluster_of_draw = torch.arange(n_clusters).repeat_interleave(quotas)  # (n,)
    position = torch.arange(n) - (quotas.cumsum(0) - quotas)[cluster_of_draw]
    drawn = members[starts[cluster_of_draw] + position % sizes[cluster_of_draw]]
    return drawn[torch.randperm(n, generator=generator)]


def natural(assignments: Tensor, n: int, generator: Generator) -> Tensor:
    """Draws every image equally often, to within one draw."""
    n_images = len(assignments)
    rounds = [torch.randperm(n_images, generator=generator) for _ in range(-(-n // n_images))]
    return torch.cat(rounds)[:n]


def released(assignments: Tensor, n: int, generator: Generator) -> Tensor:
    """Draws as the authors' released code does, which is not uniform; for ablations.

    Their uniform sampler returns indices of images, which are then used as positions in a list
    sorted by cluster. Each image keeps its label, but clusters are drawn about in proportion to
    their size.
    """
    by_cluster = assignments.argsort(stable=True)
    return by_cluster[uniform(assignments, n, generator)]
