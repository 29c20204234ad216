"""The paper's training: cluster all features, learn to tell the clusters apart, and again."""

import time

import numpy as np
from torch import Tensor

from deepcluster_torch import (
    augment,
    cluster,
    config,
    devices,
    loss,
    readout,
    samplers,
    state,
    views,
)
from deepcluster_torch.state import State


def recluster(cfg: config.Config, now: State, images: np.ndarray) -> dict[str, float]:
    """New pseudo-labels from all features, and a new head for them -> what is worth a curve."""
    began = time.perf_counter()
    if cfg.training.one_pass and now.step:
        found = now.memory[0]  # of an image that no epoch has drawn since: its last one
    else:
        found = readout.features(now.net, images, cfg)
    if cfg.training.one_pass:
        now.memory[0] = found
    clustering = time.perf_counter()
    seen = readout.points(found, cfg.model)[1]
    labels, training = now.assignments[0], cfg.training
    goes_on = training.warm_start and bool((labels >= 0).all())
    if cfg.model.clustering == "pic":
        goes_on = False
        labels.copy_(readout.find_pic(seen, cfg.model))
    else:
        # the axes of the projection turn: what stays from one epoch to the next are the members
        start = readout.means(seen, labels) if goes_on else None
        clusters = cluster.kmeans(
            seen,
            cfg.model.n_clusters,
            n_iterations=training.kmeans_iterations,
            generator=now.chance(training),
            centroids=start,
        )
        labels.copy_(clusters.assignments)
    if not goes_on:
        state.new_head(training, now, int(labels.max()) + 1)
    now.count_seconds(features=clustering - began, clustering=time.perf_counter() - clustering)
    return {"spread": readout.spread(found)}


def order(cfg: config.Training, now: State) -> Tensor:
    """The images of the epoch, by index; a label is found by the same index."""
    n_draws = max(2, round(cfg.reassign * now.assignments.shape[1]))
    return samplers.draw(cfg.sampler, now.assignments[0].cpu(), n_draws, now.chance(cfg))


def train_step(cfg: config.Config, now: State, images: Tensor, chosen: Tensor) -> Tensor:
    """One step on images uint8 (b, c, h, w) with the indices `chosen` -> the loss before it."""
    chance = now.chance(cfg.training, in_step=True)
    shown = augment.augment(images, views.large(cfg, images), chance)
    with devices.autocast(cfg.training, now.device):
        features = now.trunk(shown)
        logits = now.net["head"](features)
    value = loss.pseudo_label_loss(logits.float(), now.assignments[0][chosen])
    now.descend(value)
    if cfg.training.one_pass:
        now.memory[0, chosen] = features.detach().float()
    return value.detach()
