"""Evaluation of features with labels: k-NN, a linear probe of every stage, retrieval."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import datasets, metrics
from common.pytorch.precision import autocast
from common.pytorch.probes import knn_accuracy, linear_accuracy
from deepcluster_torch import config
from deepcluster_torch.data.augment import center_crops
from deepcluster_torch.data.loading import evenly_spaced, subset

MAX_BANK, MAX_QUERIES = 20_000, 5_000  # images
MAX_RETRIEVALS = 1_000  # queries of the retrieval
MAX_VALUES = 4_096  # per image and stage, after average pooling; paper: 9,000 to 10,000
K = 20  # neighbors
PROTOCOL = (
    f"k-NN: weighted vote of the {K} nearest by cosine; linear: logistic regression on each stage, "
    "average-pooled, and on the features; mAP: retrieval by cosine. Queries: "
)
HELD_OUT = "images that were held out of the training."
TRAINING = "every fifth training image, whose label is hidden here."


def run(
    net: nn.ModuleDict,
    cfg: config.Config,
    dataset: datasets.Images,
    held_out: datasets.Images | None,
) -> dict:
    """{"scores": ..., "protocol": ...} of labeled images; see PROTOCOL."""
    bank, queries, description = bank_and_queries(dataset, held_out)
    bank_stages = stages(net, bank.images, cfg)
    query_stages = stages(net, queries.images, cfg)
    device = bank_stages["features"].device
    labels, truth = (torch.from_numpy(each.labels).to(device) for each in (bank, queries))
    pair = bank_stages["features"], labels, query_stages["features"], truth
    linear = {
        name: linear_accuracy(bank_stages[name], labels, query_stages[name], truth)
        for name in bank_stages
    }
    scores = {
        "knn": knn_accuracy(*pair, K),
        "retrieval_map": mean_average_precision(*pair),
        "linear": linear,
    }
    return {"scores": scores, "protocol": PROTOCOL + description}


def bank_and_queries(
    dataset: datasets.Images, held_out: datasets.Images | None
) -> tuple[datasets.Images, datasets.Images, str]:
    """Images with known labels, images to predict labels for, and a description of the latter."""
    if held_out is not None and held_out.labels is not None:
        bank, queries = np.arange(len(dataset.paths)), np.arange(len(held_out.paths))
        source, description = held_out, HELD_OUT
    else:
        order = np.random.default_rng(0).permutation(len(dataset.paths))
        n = max(1, len(order) // 5)
        bank, queries = np.sort(order[n:]), np.sort(order[:n])
        source, description = dataset, TRAINING
    return (
        subset(dataset, evenly_spaced(bank, MAX_BANK)),
        subset(source, evenly_spaced(queries, MAX_QUERIES)),
        description,
    )


@torch.no_grad()
def stages(net: nn.ModuleDict, images: np.ndarray, cfg: config.Config) -> dict[str, Tensor]:
    """Pooled outputs (n, d) of each stage of the trunk, and its features (n, f)."""
    device = next(net.parameters()).device
    net.eval()
    parts: dict[str, list[Tensor]] = {}
    for batch in center_crops(images, cfg, device):
        with autocast(cfg.training.precision, device):
            outputs = net["trunk"].activations(batch)
            outputs["features"] = net["trunk"](batch)
        for name, values in outputs.items():
            parts.setdefault(name, []).append(pool(values.float()))
    return {name: torch.cat(batches) for name, batches in parts.items()}


def pool(values: Tensor) -> Tensor:
    """Average-pools (b, c, h, w) to (b, d), where d is at most MAX_VALUES, or c if that is more."""
    if values.ndim != 4:
        return values.flatten(1)
    side = max(1, int((MAX_VALUES / values.shape[1]) ** 0.5))
    size = [min(side, n) for n in values.shape[2:]]
    return F.adaptive_avg_pool2d(values, size).flatten(1)


def mean_average_precision(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Mean over queries (m, d) of the average precision of ranking bank (n, d) by cosine.

    Relevant are images with the query's label; for queries without any and for ties see
    `metrics.mean_average_precision`. At most MAX_RETRIEVALS queries, evenly spaced.
    """
    chosen = torch.from_numpy(evenly_spaced(np.arange(len(queries)), MAX_RETRIEVALS))
    points, keys = (
        F.normalize(each).cpu().numpy() for each in (queries[chosen.to(queries.device)], bank)
    )
    gallery = keys, labels.cpu().numpy()
    return metrics.mean_average_precision(points, truth.cpu()[chosen].numpy(), gallery)
