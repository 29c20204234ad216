"""All that is said of a run's own images beside their clusters: pictures, probes, projector."""

import numpy as np
import torch
from torch import nn

from common import UserError, datasets
from common.run import Run
from deepcluster_torch import (
    config,
    devices,
    neighbours,
    pictures,
    probes,
    projector,
    split,
    views,
)  # fmt: skip
from deepcluster_torch.readout import Assigned

MAX_ACTIVATED = 2_000  # images among which those are sought that activate a channel most
MIN_PROBED = 10  # images


def write(
    run: Run,
    net: nn.ModuleDict,
    cfg: config.Config,
    found: datasets.Images,
    held_out: datasets.Images | None,
    assigned: Assigned,
    n_clusters: int,
) -> None:
    """Into RUN/images and RUN/projector; with labels also RUN/probes.json."""
    folder = run.images
    pictures.write_sizes(folder / "sizes.png", assigned.clusters, n_clusters)
    pictures.write_map(folder / "map.png", assigned.embeddings, assigned.clusters)
    neighbours.write_of_training(folder / "neighbours.png", found, assigned.embeddings)
    write_filters(run, net)
    some = split.subset(found, views.spread_out(np.arange(len(found.paths)), MAX_ACTIVATED))
    pictures.write_activations(
        folder / "activations.png", some.images, channels(net, some.images, cfg)
    )
    projector.write(run.path / "projector", found, assigned.embeddings, assigned.clusters)
    if found.labels is not None and len(found.paths) >= MIN_PROBED:
        run.write_json("probes.json", probes.run(net, cfg, found, held_out))


def write_filters(run: Run, net: nn.ModuleDict) -> None:
    """filters.png; a trunk that begins with something else has none."""
    try:
        filters = net["trunk"].first_filters()
    except UserError:
        return
    pictures.write_filters(run.images / "filters.png", filters)


@torch.no_grad()
def channels(net: nn.ModuleDict, images: np.ndarray, cfg: config.Config) -> np.ndarray:
    """The mean activation (n, c) of each channel of the trunk's last stage that has places."""
    device = next(net.parameters()).device
    parts = []
    for batch in views.centres(images, cfg.model, device):
        with devices.autocast(cfg.training, device):
            stages = net["trunk"].activations(batch)
        last = [values for values in stages.values() if values.ndim == 4][-1]
        parts.append(last.float().mean((2, 3)).cpu().numpy())
    return np.concatenate(parts)
