"""What features are worth with labels: k-NN, a linear probe of every stage, retrieval."""

import logging

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import datasets
from deepcluster_torch import config, devices, split, views

log = logging.getLogger("deepcluster_torch.probes")

MAX_BANK, MAX_QUERIES = 20_000, 5_000  # images that are known, and that are asked about
MAX_SEARCHED = 1_000  # queries of the retrieval
MAX_VALUES = 4_096  # of a stage, averaged over places; the paper has 9,000 to 10,000
K, TEMPERATURE = 20, 0.07  # of the k-NN, whose neighbours weigh exp(cosine / temperature)
N_STEPS, PENALTY = 100, 1e-3  # of the linear probe
PROTOCOL = (
    f"k-NN: {K} neighbours by cosine, weighted; linear: logistic regression on each stage, "
    "averaged over places, and on the features; mAP over all images known, by cosine. Asked about: "
)
HELD_OUT = "images that were held out of the training."
HIDDEN = "every fifth image, whose label is hidden here but which the training has seen."


def run(
    net: nn.ModuleDict,
    cfg: config.Config,
    found: datasets.Images,
    held_out: datasets.Images | None,
) -> dict:
    """{"scores": ..., "protocol": ...} of labelled images; see PROTOCOL."""
    bank, queries, protocol = pair(found, held_out)
    known, asked = stages(net, bank.images, cfg), stages(net, queries.images, cfg)
    device = known["features"].device
    labels, truth = (torch.from_numpy(each.labels).to(device) for each in (bank, queries))
    pair_of = known["features"], asked["features"]
    linear = {name: probe(known[name], labels, asked[name], truth) for name in known}
    scores = {
        "knn": knn(pair_of[0], labels, pair_of[1], truth),
        "retrieval_map": mean_average_precision(pair_of[0], labels, pair_of[1], truth),
        "linear": linear,
    }
    return {"scores": scores, "protocol": PROTOCOL + protocol}


def pair(
    found: datasets.Images, held_out: datasets.Images | None
) -> tuple[datasets.Images, datasets.Images, str]:
    """The images whose labels are known, those that are asked about, and what they are."""
    if held_out is not None and held_out.labels is not None:
        bank, queries, what = np.arange(len(found.paths)), held_out, HELD_OUT
        rows = np.arange(len(held_out.paths))
    else:
        rows = np.random.default_rng(0).permutation(len(found.paths))
        n = max(1, len(rows) // 5)
        bank, rows, queries, what = np.sort(rows[n:]), np.sort(rows[:n]), found, HIDDEN
    return (
        split.subset(found, views.spread_out(bank, MAX_BANK)),
        split.subset(queries, views.spread_out(rows, MAX_QUERIES)),
        what,
    )


@torch.no_grad()
def stages(net: nn.ModuleDict, images: np.ndarray, cfg: config.Config) -> dict[str, Tensor]:
    """After each stage of the trunk (n, at most MAX_VALUES), averaged; and its features (n, f)."""
    device = next(net.parameters()).device
    net.eval()
    parts: dict[str, list[Tensor]] = {}
    for batch in views.centres(images, cfg.model, device):
        with devices.autocast(cfg.training, device):
            found = net["trunk"].activations(batch)
            found["features"] = net["trunk"](batch)
        for name, values in found.items():
            parts.setdefault(name, []).append(flat(values.float()))
    return {name: torch.cat(of_stage) for name, of_stage in parts.items()}


def flat(values: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, d), d at most MAX_VALUES or c; averaged over parts of the places"""
    if values.ndim != 4:
        return values.flatten(1)
    side = max(1, int((MAX_VALUES / values.shape[1]) ** 0.5))
    size = [min(side, places) for places in values.shape[2:]]
    return F.adaptive_avg_pool2d(values, size).flatten(1)


def knn(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Share of queries (m, d) with the label that their nearest of bank (n, d) vote for.

    Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination".
    """
    bank, k, n_right = F.normalize(bank), min(K, len(bank)), 0
    n_classes = int(max(labels.max(), truth.max())) + 1
    for batch, expected in zip(queries.split(views.BATCH), truth.split(views.BATCH), strict=True):
        cosines, ids = (F.normalize(batch) @ bank.T).topk(k, dim=1)
        votes = torch.zeros(len(batch), n_classes, device=bank.device)
        votes.scatter_add_(1, labels[ids], ((cosines - 1) / TEMPERATURE).exp())
        n_right += int((votes.argmax(1) == expected).sum())
    return n_right / len(queries)


def probe(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Accuracy on queries (m, d) of logistic regression learned from bank (n, d)."""
    mean, deviation = bank.mean(0), bank.std(0, correction=0).clamp(min=1e-6)
    bank, queries = (bank - mean) / deviation, (queries - mean) / deviation
    n_classes = int(max(labels.max(), truth.max())) + 1
    weight = torch.zeros(n_classes, bank.shape[1], device=bank.device, requires_grad=True)
    bias = torch.zeros(n_classes, device=bank.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=N_STEPS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(bank, weight, bias), labels)
        value = value + PENALTY * weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(objective)
    with torch.no_grad():
        return float((F.linear(queries, weight, bias).argmax(1) == truth).float().mean())


def mean_average_precision(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Mean over queries of the precision at each place of an image of their class, by cosine.

    Queries without any such image are left out; 0 where all are.
    """
    chosen = torch.from_numpy(views.spread_out(np.arange(len(queries)), MAX_SEARCHED)).to(
        bank.device
    )
    bank, total, n_counted = F.normalize(bank), 0.0, 0
    places = torch.arange(1, len(bank) + 1, device=bank.device)
    for rows in chosen.split(views.BATCH):
        order = (F.normalize(queries[rows]) @ bank.T).argsort(dim=1, descending=True, stable=True)
        hits = (labels[order] == truth[rows, None]).float()  # (b, n)
        n_hits = hits.sum(1)
        precision = hits.cumsum(1) / places
        average = (precision * hits).sum(1) / n_hits.clamp(min=1)
        total += float(average.sum())
        n_counted += int((n_hits > 0).sum())
    return total / max(n_counted, 1)
