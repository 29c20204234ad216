"""The paper's mode: cluster all features, train to classify the clusters, repeat."""

import time

import numpy as np
from torch import Tensor

from common.pytorch.precision import autocast
from deepcluster_torch import config, loss
from deepcluster_torch.cluster.final import warm_start
from deepcluster_torch.cluster.kmeans import kmeans
from deepcluster_torch.cluster.pic import pic
from deepcluster_torch.cluster.whitening import whiten
from deepcluster_torch.data import augment, samplers
from deepcluster_torch.model import features
from deepcluster_torch.modes.state import State, new_head


def recluster(cfg: config.Config, state: State, images: np.ndarray) -> dict[str, float]:
    """Computes new pseudo-labels of images uint8 (n, h, w, c) and a new head -> metrics to log."""
    training = cfg.training
    began = time.perf_counter()
    if training.one_pass and state.step:
        values = state.memory[0]  # images that the last epochs did not draw keep older features
    else:
        values = features.extract(state.net, images, cfg)
    if training.one_pass:
        state.memory[0] = values
    extracted = time.perf_counter()
    points = whiten(values, cfg.model)[1]
    labels = state.assignments[0]
    centroids = None
    if cfg.model.clustering == "pic":
        labels.copy_(pic(points, n_neighbors=cfg.model.n_neighbors, sigma=cfg.model.sigma))
    else:
        if training.warm_start:  # from the members, as the axes of the whitening change every epoch
            centroids = warm_start(points, labels, cfg.model.n_clusters)
        clusters = kmeans(
            points,
            cfg.model.n_clusters,
            n_iterations=training.kmeans_iterations,
            generator=state.epoch_generator(training.seed),
            centroids=centroids,
        )
        labels.copy_(clusters.assignments)
    if centroids is None:
        new_head(training, state, int(labels.max()) + 1)
    state.add_seconds(features=extracted - began, clustering=time.perf_counter() - extracted)
    return {"spread": features.spread(values)}


def epoch_order(training: config.Training, state: State) -> Tensor:
    """The indices of the images of an epoch, on the CPU."""
    labels = state.assignments[0]
    n = max(2, round(training.reassign * len(labels)))
    return samplers.draw(training.sampler, labels, n, state.epoch_generator(training.seed))


def train_step(cfg: config.Config, state: State, images: Tensor, indices: Tensor) -> Tensor:
    """One step on images uint8 (b, c, h, w) with indices (b,) in the dataset -> its loss."""
    generator = state.step_generator(cfg.training.seed)
    crops = augment.augment(images, augment.large_crop(cfg, images), generator)
    with autocast(cfg.training.precision, state.device):
        values = state.trunk(crops)
        logits = state.net["head"](values)
    cross_entropy = loss.pseudo_label_loss(logits.float(), state.assignments[0][indices])
    state.optimizer_step(cross_entropy)
    if cfg.training.one_pass:
        state.memory[0, indices] = values.detach().float()
    return cross_entropy.detach()
