"""The gradient-free steps: initial prototypes, reassignment of empty clusters, pruning."""

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from torch import Tensor, nn

from common import duplicates
from common.pytorch.random import seeded_generator
from dti_torch import config, data
from dti_torch.model import DTI

MAX_KMEANS_IMAGES = 100_000
MAX_KMEANS_VALUES = 10_000_000  # larger data: mini-batch k-means
BASELINE_SIDE = 32  # pixels; the baseline downscales larger images to it
BATCH = 256  # images whose distances are computed at a time
NOISE = 1e-4  # breaks the symmetry between a prototype and its copy


def initial_prototypes(images: Tensor, cfg: config.Model, seed: int) -> Tensor:
    """images (n, c, h, w) -> prototypes (k, c, h, w) in [0, 1], the surplus included"""
    k = cfg.n_initial(len(images))
    shape = (k, *images.shape[1:])
    generator = seeded_generator(seed)
    if cfg.init == "constant":
        return torch.full(shape, cfg.init_value)
    if cfg.init in ("random", "soup"):
        return torch.rand(shape, generator=generator)
    if cfg.init == "sample":
        chosen = torch.randperm(len(images), generator=generator)[:k]
        return data.to_float(images[chosen.to(images.device)].cpu())
    chosen = torch.randperm(len(images), generator=generator)[:MAX_KMEANS_IMAGES]
    pixels = data.to_float(images[chosen.to(images.device)].cpu()).flatten(1).numpy()
    return torch.from_numpy(_kmeans(pixels, k, seed).cluster_centers_).view(shape)


def initial_sigmas(images: Tensor, prototypes: Tensor, var_min: float) -> Tensor:
    """Sigmas (k, c, h, w) from the variance of the images nearest to each prototype."""
    pixels = data.to_float(images).flatten(1)
    nearest = torch.cdist(pixels, prototypes.flatten(1).to(pixels)).argmin(1)
    variances = torch.stack(
        [
            pixels[nearest == k].var(0, correction=0) if (nearest == k).any() else pixels.var(0)
            for k in range(len(prototypes))
        ]
    )
    return (variances - var_min).clamp(min=NOISE).sqrt().view(prototypes.shape)


def pixel_kmeans(images: Tensor, n_clusters: int, seed: int) -> np.ndarray:
    """The baseline: clusters (n,) by k-means on the pixels of uint8 images (n, c, h, w)."""
    if max(images.shape[2:]) > BASELINE_SIDE:
        side = min(BASELINE_SIDE, *images.shape[2:])
        small = [
            nn.functional.adaptive_avg_pool2d(part.float(), side) for part in images.split(256)
        ]
        images = torch.cat(small)
    pixels = images.cpu().flatten(1).numpy().astype(np.float32) / 255
    return _kmeans(pixels, n_clusters, seed).labels_


def _kmeans(pixels: np.ndarray, n_clusters: int, seed: int) -> KMeans | MiniBatchKMeans:
    estimator = KMeans if pixels.size <= MAX_KMEANS_VALUES else MiniBatchKMeans
    with duplicates.without_kmeans_warning():
        return estimator(n_clusters, n_init=3, random_state=seed).fit(pixels)


@torch.no_grad()
def distances(net: DTI, images: Tensor) -> Tensor:
    """`DTI.forward` in batches: images (n, c, h, w), uint8 or floats -> distances (n, k)."""
    return torch.cat([net(data.to_float(part)) for part in images.split(BATCH)])


def removal_costs(distances: Tensor) -> Tensor:
    """How much larger the sum of distances (b, k), k > 1, is without each prototype -> (k,)

    The distance from the nearest prototype to the second nearest, summed over the images that the
    prototype wins.
    """
    nearest, winners = distances.topk(2, largest=False)
    costs = distances.new_zeros(distances.shape[1])
    return costs.index_add_(0, winners[:, 0], nearest[:, 1] - nearest[:, 0])


def superfluous(distances: Tensor, n: int) -> list[int]:
    """The `n` prototypes to remove, one after the other, so that the loss rises least each time.

    distances (b, k), k > n
    """
    left = list(range(distances.shape[1]))
    removed = []
    for _ in range(n):
        removed.append(left.pop(int(removal_costs(distances[:, left]).argmin())))
    return removed


@torch.no_grad()
def remove(net: DTI, optimizer: torch.optim.Optimizer, clusters: list[int]) -> list[int]:
    """Removes prototypes, their regressors and Adam moments; returns the indices that were kept."""
    left = [k for k in range(len(net.prototypes)) if k not in clusters]
    for parameter in per_prototype(net):
        moments = optimizer.state.get(parameter, {})
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = value[left]
        parameter.data, parameter.grad = parameter.data[left], None
    return left


@torch.no_grad()
def reassign(
    net: DTI,
    optimizer: torch.optim.Optimizer,
    clusters: list[int],
    donor: int,
    generator: torch.Generator,
) -> None:
    """Replaces clusters by copies of a donor: prototype, regressors, sigma, logit, Adam moments.

    Noise of 1e-4 is added to the prototypes, the donor's included.
    """
    for parameter in per_prototype(net):
        moments = [
            value for value in optimizer.state[parameter].values() if value.shape == parameter.shape
        ]
        for tensor in (parameter, *moments):
            tensor[clusters] = tensor[donor].clone()
    for k in (*clusters, donor):
        noise = torch.randn(net.prototypes[k].shape, generator=generator)
        net.prototypes[k] += NOISE * noise.to(net.prototypes)


def per_prototype(net: DTI) -> list[nn.Parameter]:
    """The parameters whose first axis is the prototype."""
    return [p for name, p in net.named_parameters() if not name.startswith("encoder.")]
