"""The gradient-free steps: initial prototypes, and reassignment of empty or redundant clusters."""

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
NOISE = 1e-4  # breaks the symmetry between a prototype and its copy


def initial_prototypes(images: Tensor, cfg: config.Model, seed: int) -> Tensor:
    """images (n, c, h, w) -> prototypes (k, c, h, w) in [0, 1]"""
    shape = (cfg.n_prototypes, *images.shape[1:])
    generator = seeded_generator(seed)
    if cfg.init == "constant":
        return torch.full(shape, cfg.init_value)
    if cfg.init in ("random", "soup"):
        return torch.rand(shape, generator=generator)
    if cfg.init == "sample":
        chosen = torch.randperm(len(images), generator=generator)[: cfg.n_prototypes]
        return data.to_float(images[chosen.to(images.device)].cpu())
    chosen = torch.randperm(len(images), generator=generator)[:MAX_KMEANS_IMAGES]
    pixels = data.to_float(images[chosen.to(images.device)].cpu()).flatten(1).numpy()
    return torch.from_numpy(_kmeans(pixels, cfg.n_prototypes, seed).cluster_centers_).view(shape)


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


def cluster_usage(distances: Tensor) -> Tensor:
    """distances (b, k) -> (3, k), summed over the images that each prototype wins.

    Rows: number of images, their distances (above the smallest one of the batch, as likelihoods
    have no natural zero), and how much larger the distances would be without the prototype.
    """
    n, k = distances.shape
    nearest, winners = distances.topk(min(2, k), largest=False)
    rows = torch.stack(
        [
            torch.ones(n).to(distances),
            nearest[:, 0] - distances.min(),
            nearest[:, -1] - nearest[:, 0],
        ]
    )
    return torch.zeros(3, k).to(distances).index_add_(1, winners[:, 0], rows)


def find_redundant(usage: Tensor, cooldown: Tensor, redundancy: float) -> tuple[int, int] | None:
    """The prototype whose removal costs least, and the one with the largest remaining distance.

    None unless that cost is below `redundancy` times that distance. usage (3, k) as in
    `cluster_usage`; prototypes with a cooldown (k,) above 0 are excluded. Catches a local minimum
    that cluster sizes never show: one digit in two clusters, two digits in another.
    """
    costs = usage[2].masked_fill(cooldown > 0, torch.inf)
    remaining = usage[1].masked_fill(cooldown > 0, 0)
    least, worst = int(costs.argmin()), int(remaining.argmax())
    if least == worst or costs[least] >= redundancy * remaining[worst]:
        return None
    return least, worst


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
    per_prototype = [p for name, p in net.named_parameters() if not name.startswith("encoder.")]
    for parameter in per_prototype:
        moments = [
            value for value in optimizer.state[parameter].values() if value.shape == parameter.shape
        ]
        for tensor in (parameter, *moments):
            tensor[clusters] = tensor[donor].clone()
    for k in (*clusters, donor):
        noise = torch.randn(net.prototypes[k].shape, generator=generator)
        net.prototypes[k] += NOISE * noise.to(net.prototypes)
