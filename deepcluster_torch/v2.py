"""DeepCluster-v2: the embeddings of the last epoch are clustered, the centroids are the classifier.

Caron et al. 2020, "Unsupervised learning of visual features by contrasting cluster assignments".
"""

import time

import numpy as np
import torch
from torch import Tensor

from deepcluster_torch import (
    augment,
    cluster,
    config,
    data,
    devices,
    loss,
    readout,
    samplers,
    state,
    views,
)
from deepcluster_torch.state import State


def recluster(cfg: config.Config, now: State, images: np.ndarray) -> dict[str, float]:
    """Spherical k-means of the memory for each head -> what is worth a curve.

    Heads take the crops of the memory in turn. Before the first epoch the memory is filled.
    """
    began, training = time.perf_counter(), cfg.training
    if now.step == 0:
        fill_memory(cfg, now, images)
    clustering = time.perf_counter()
    chance = now.chance(training)
    for head, k in enumerate(state.head_sizes(cfg.model, now.assignments.shape[1])):
        seen, labels = now.memory[head % len(now.memory)], now.assignments[head]
        goes_on = training.warm_start and bool((labels >= 0).all())
        found = cluster.kmeans(
            seen,
            k,
            n_iterations=training.kmeans_iterations,
            generator=chance,
            centroids=readout.means(seen, labels) if goes_on else None,
            spherical=True,
        )
        labels.copy_(found.assignments)
        now.net["prototypes"].set(head, found.centroids)
    now.count_seconds(features=clustering - began, clustering=time.perf_counter() - clustering)
    return {"spread": readout.spread(now.memory[0])}


def order(cfg: config.Training, now: State) -> Tensor:
    """Every image once: after an epoch the whole memory is new."""
    labels = now.assignments[0].cpu()
    return samplers.natural(labels, len(labels), now.chance(cfg))


@torch.no_grad()
def fill_memory(cfg: config.Config, now: State, images: np.ndarray) -> None:
    """Embeddings of random crops of all images by the network as it starts."""
    now.net.train()  # an untrained batch norm knows no other statistics than the batch's
    chance = now.chance(cfg.training)
    for batch, chosen in data.batches(images, views.BATCH):
        shown = multi_crop(cfg, batch.to(now.device), chance)[: cfg.training.n_crops]
        with devices.autocast(cfg.training, now.device):
            embeddings = now.net["projection"](now.trunk(torch.cat(shown)))
        now.memory[:, chosen] = embeddings.float().unflatten(0, (len(shown), -1))


def train_step(cfg: config.Config, now: State, images: Tensor, chosen: Tensor) -> Tensor:
    """One step on images uint8 (b, c, h, w) with the indices `chosen` -> the loss before it."""
    n_large = cfg.training.n_crops
    shown = multi_crop(cfg, images, now.chance(cfg.training, in_step=True))
    with devices.autocast(cfg.training, now.device):
        sizes = [part for part in (shown[:n_large], shown[n_large:]) if part]
        found = torch.cat([now.trunk(torch.cat(part)) for part in sizes])
        embeddings = now.net["projection"](found)  # (v b, d), crop by crop
        cosines = now.net["prototypes"](embeddings)
    labels = now.assignments[:, chosen]
    value = loss.prototype_loss([c.float() for c in cosines], labels, cfg.model.temperature)
    now.descend(value)
    kept = embeddings.detach().float().unflatten(0, (len(shown), -1))
    now.memory[:, chosen] = kept[:n_large]
    return value.detach()


def multi_crop(cfg: config.Config, images: Tensor, chance: torch.Generator) -> list[Tensor]:
    """The large crops of uint8 images (b, c, h, w), which the memory keeps, then the small ones."""
    crops = [views.large(cfg, images)] * cfg.training.n_crops
    crops += [views.small(cfg, images)] * cfg.training.n_small_crops
    return augment.multi_crop(images, crops, chance)
