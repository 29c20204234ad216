"""DeepCluster-v2: the embeddings of the last epoch are clustered, the centroids are the classifier.

Caron et al. 2020, "Unsupervised learning of visual features by contrasting cluster assignments".
"""

import time

import numpy as np
import torch
from torch import Tensor

from common.pytorch.precision import autocast
from deepcluster_torch import config, loss
from deepcluster_torch.cluster.final import warm_start
from deepcluster_torch.cluster.kmeans import kmeans
from deepcluster_torch.data import augment, samplers
from deepcluster_torch.data.batches import INFERENCE_BATCH, batches
from deepcluster_torch.model import features
from deepcluster_torch.modes.state import State, head_sizes


def recluster(cfg: config.Config, state: State, images: np.ndarray) -> dict[str, float]:
    """Spherical k-means of the memory bank for each head -> metrics to log.

    Heads use the crops in the memory bank in turn. Before the first epoch it is filled from images
    uint8 (n, h, w, c).
    """
    training = cfg.training
    began = time.perf_counter()
    if state.step == 0:
        fill_memory(cfg, state, images)
    filled = time.perf_counter()
    generator = state.epoch_generator(training.seed)
    for head, k in enumerate(head_sizes(cfg.model, state.assignments.shape[1])):
        embeddings, labels = state.memory[head % len(state.memory)], state.assignments[head]
        clusters = kmeans(
            embeddings,
            k,
            n_iterations=training.kmeans_iterations,
            generator=generator,
            centroids=warm_start(embeddings, labels, k) if training.warm_start else None,
            spherical=True,
        )
        labels.copy_(clusters.assignments)
        state.net["prototypes"].set(head, clusters.centroids)
    state.add_seconds(features=filled - began, clustering=time.perf_counter() - filled)
    return {"spread": features.spread(state.memory[0])}


def epoch_order(training: config.Training, state: State) -> Tensor:
    """The indices of an epoch, on the CPU: every image once, so the whole memory is renewed."""
    labels = state.assignments[0]
    return samplers.natural(labels, len(labels), state.epoch_generator(training.seed))


@torch.no_grad()
def fill_memory(cfg: config.Config, state: State, images: np.ndarray) -> None:
    """Stores embeddings of random crops of all images by the initial network."""
    state.net.train()  # untrained batch norm layers have no statistics but the batch's
    generator = state.epoch_generator(cfg.training.seed)
    for batch, indices in batches(images, INFERENCE_BATCH):
        crops = multi_crop(cfg, batch.to(state.device), generator)[: cfg.training.n_crops]
        with autocast(cfg.training.precision, state.device):
            embeddings = state.net["projection"](state.trunk(torch.cat(crops)))
        state.memory[:, indices] = embeddings.float().unflatten(0, (len(crops), -1))


def train_step(cfg: config.Config, state: State, images: Tensor, indices: Tensor) -> Tensor:
    """One step on images uint8 (b, c, h, w) with indices (b,) in the dataset -> its loss."""
    n_large = cfg.training.n_crops
    crops = multi_crop(cfg, images, state.step_generator(cfg.training.seed))
    with autocast(cfg.training.precision, state.device):
        # one forward pass per size
        sizes = [part for part in (crops[:n_large], crops[n_large:]) if part]
        values = torch.cat([state.trunk(torch.cat(part)) for part in sizes])
        embeddings = state.net["projection"](values)  # (v b, d), crop by crop
        cosines = state.net["prototypes"](embeddings)
    labels = state.assignments[:, indices]
    cross_entropy = loss.prototype_loss(
        [per_head.float() for per_head in cosines], labels, cfg.model.temperature
    )
    state.optimizer_step(cross_entropy)
    per_crop = embeddings.detach().float().unflatten(0, (len(crops), -1))
    state.memory[:, indices] = per_crop[:n_large]
    return cross_entropy.detach()


def multi_crop(cfg: config.Config, images: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Crops of images uint8 (b, c, h, w): the large ones, then the small ones."""
    crops = [augment.large_crop(cfg, images)] * cfg.training.n_crops
    crops += [augment.small_crop(cfg, images)] * cfg.training.n_small_crops
    return augment.multi_crop(images, crops, generator)
