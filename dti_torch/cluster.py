"""The steps of DTI clustering without gradient: first prototypes, and rescue of empty clusters."""

import logging

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from torch import Tensor, nn

from dti_torch import config, data
from dti_torch.model import DTI

log = logging.getLogger(__name__)

MAX_KMEANS_IMAGES = 100_000
MAX_KMEANS_VALUES = 10_000_000  # above, k-means runs on mini-batches
BASELINE_SIDE = 32  # pixels; larger images are averaged down to it before plain k-means
NOISE = 1e-4  # tells a copied prototype from its original


def initial_prototypes(images: Tensor, cfg: config.Model, seed: int) -> Tensor:
    """images (n, c, h, w) -> the first prototypes (k, c, h, w) in [0, 1]"""
    shape = (cfg.n_prototypes, *images.shape[1:])
    generator = torch.Generator().manual_seed(seed)
    if cfg.init == "constant":
        return torch.full(shape, cfg.init_value)
    if cfg.init == "soup":
        return torch.rand(shape, generator=generator)
    if cfg.init == "sample":
        chosen = torch.randperm(len(images), generator=generator)[: cfg.n_prototypes]
        return data.to_float(images[chosen.to(images.device)].cpu())
    chosen = torch.randperm(len(images), generator=generator)[:MAX_KMEANS_IMAGES]
    pixels = data.to_float(images[chosen.to(images.device)].cpu()).flatten(1).numpy()
    return torch.from_numpy(_kmeans(pixels, cfg.n_prototypes, seed).cluster_centers_).view(shape)


def initial_sigmas(images: Tensor, prototypes: Tensor, var_min: float) -> Tensor:
    """Spread of each pixel among the images next to each prototype (k, c, h, w), less var_min."""
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
    """The baseline: clusters (n,) of plain k-means on the pixels of uint8 images (n, c, h, w)."""
    if max(images.shape[2:]) > BASELINE_SIDE:
        side = min(BASELINE_SIDE, *images.shape[2:])
        small = [
            nn.functional.adaptive_avg_pool2d(part.float(), side) for part in images.split(256)
        ]
        images = torch.cat(small)
    pixels = images.cpu().flatten(1).numpy().astype(np.float32) / 255
    return _kmeans(pixels, n_clusters, seed).labels_


def _kmeans(pixels: np.ndarray, n_clusters: int, seed: int) -> KMeans | MiniBatchKMeans:
    kind = KMeans if pixels.size <= MAX_KMEANS_VALUES else MiniBatchKMeans
    return kind(n_clusters, n_init=3, random_state=seed).fit(pixels)


def usage(distances: Tensor) -> Tensor:
    """distances (b, k) -> (3, k), summed over the images that each prototype wins.

    Rows: the images, their distances (above the least in the batch: a likelihood has no zero), and
    how much larger the distances would be without the prototype.
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


def find_redundant(usage: Tensor, settling: Tensor, redundancy: float) -> tuple[int, int] | None:
    """The prototype that is missed least, and the one that most distance is left in, to move it to.

    None unless the first is missed by less than `redundancy` times what is left in the second.
    usage (3, k); prototypes with settling (k,) above 0 were moved a moment ago and are left alone.
    One digit in two clusters and two digits in one: no share of wins ever shows that minimum.
    """
    missed = usage[2].masked_fill(settling > 0, torch.inf)
    left = usage[1].masked_fill(settling > 0, 0)
    least, worst = int(missed.argmin()), int(left.argmax())
    if least == worst or missed[least] >= redundancy * left[worst]:
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
    """Overwrites prototypes by a donor: regressors, sigma, mixing logit and Adam moments as well.

    Noise of 1e-4 on the prototypes tells the copies apart.
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
