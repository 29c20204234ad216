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


@torch.no_grad()
def reassign_empty(
    net: DTI,
    optimizer: torch.optim.Optimizer,
    proportions: Tensor,
    threshold: float,
    generator: torch.Generator,
) -> list[int]:
    """Overwrites prototypes that win a smaller share than `threshold` by the one that wins most.

    Prototype, regressors, sigma, mixing logit and their Adam moments are copied; noise of 1e-4 on
    the prototypes tells the copies apart. proportions (k,) sum to 1. Returns the overwritten.
    """
    empty = torch.nonzero(proportions < threshold).flatten().tolist()
    largest = int(proportions.argmax())
    if not empty:
        return []
    per_prototype = [p for name, p in net.named_parameters() if not name.startswith("encoder.")]
    for parameter in per_prototype:
        moments = [
            value for value in optimizer.state[parameter].values() if value.shape == parameter.shape
        ]
        for tensor in (parameter, *moments):
            tensor[empty] = tensor[largest].clone()
    for k in (*empty, largest):
        noise = torch.randn(net.prototypes[k].shape, generator=generator)
        net.prototypes[k] += NOISE * noise.to(net.prototypes.device)
    return empty
