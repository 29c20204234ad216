"""Figures, probes and the TensorBoard projector for the images of a run."""

import numpy as np
import torch
from torch import nn

from common import UserError, datasets
from common.pytorch.precision import autocast
from common.run import Run
from deepcluster_torch import config, figures
from deepcluster_torch.cluster.final import Assignments
from deepcluster_torch.data.augment import center_crops
from deepcluster_torch.data.loading import evenly_spaced, subset
from deepcluster_torch.evaluation import neighbors, probes, projector

MAX_ACTIVATIONS = 2_000  # images among which those that activate a channel most are searched
MIN_PROBED = 10  # images


def write(
    run: Run,
    net: nn.ModuleDict,
    cfg: config.Config,
    dataset: datasets.Images,
    held_out: datasets.Images | None,
    assignments: Assignments,
    n_clusters: int,
) -> None:
    """Writes RUN/images and RUN/projector; with labels also RUN/probes.json."""
    folder = run.images
    figures.write_sizes(folder / "sizes.png", assignments.clusters, n_clusters)
    figures.write_map(folder / "map.png", assignments.embeddings, assignments.clusters)
    neighbors.write_training(folder / "neighbors.png", dataset, assignments.embeddings)
    write_filters(run, net)
    some = subset(dataset, evenly_spaced(np.arange(len(dataset.paths)), MAX_ACTIVATIONS))
    activations = channel_activations(net, some.images, cfg)
    figures.write_activations(folder / "activations.png", some.images, activations)
    projector.write(run.path / "projector", dataset, assignments.embeddings, assignments.clusters)
    if dataset.labels is not None and len(dataset.paths) >= MIN_PROBED:
        run.write_json("probes.json", probes.run(net, cfg, dataset, held_out))


def write_filters(run: Run, net: nn.ModuleDict) -> None:
    """Writes filters.png, unless the trunk has no convolution."""
    try:
        filters = net["trunk"].first_filters()
    except UserError:
        return
    figures.write_filters(run.images / "filters.png", filters)


@torch.no_grad()
def channel_activations(net: nn.ModuleDict, images: np.ndarray, cfg: config.Config) -> np.ndarray:
    """Mean activation (n, c) of each channel of the trunk's last stage with spatial positions."""
    device = next(net.parameters()).device
    parts = []
    for batch in center_crops(images, cfg, device):
        with autocast(cfg.training.precision, device):
            stages = net["trunk"].activations(batch)
        last = [values for values in stages.values() if values.ndim == 4][-1]
        parts.append(last.float().mean((2, 3)).cpu().numpy())
    return np.concatenate(parts)
