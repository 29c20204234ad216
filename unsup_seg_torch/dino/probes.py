"""What features are worth with labels: weighted k-NN and a linear probe (section 4.1)."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common import UserError, datasets
from unsup_seg_torch import precision
from unsup_seg_torch.dino import config, data
from unsup_seg_torch.encoders import Encoder

KS, TEMPERATURE = (10, 20), 0.07  # neighbours; each weighs exp(cosine / temperature)
BATCH = 256
N_STEPS, PENALTY = 100, 1e-3  # of the linear probe
HELD_OUT = "images of dataset.test_split."
HIDDEN = "every fifth image, whose label is hidden here but which the training has seen."
PROTOCOL = (
    "k-NN: so many neighbours by cosine of the teacher's class token, weighted; linear: logistic "
    "regression on it. Asked about: "
)


@torch.no_grad()
def features(encoder: Encoder, images: np.ndarray, cfg: config.Training) -> Tensor:
    """The class token of uint8 images (n, h, w, 3) -> float32 (n, d)"""
    device, found = encoder.mean.device, []
    for first in range(0, len(images), BATCH):
        batch = torch.from_numpy(images[first : first + BATCH]).permute(0, 3, 1, 2).to(device)
        with precision.autocast(cfg.precision, device):
            found.append(encoder(batch.float() / 255)[:, 0].float())
    return torch.cat(found)


def pair(
    found: datasets.Images, held_out: datasets.Images | None
) -> tuple[datasets.Images, datasets.Images, str]:
    """Images whose labels are known, images that are asked about, and what these are."""
    if held_out is not None and held_out.labels is not None:
        return found, held_out, HELD_OUT
    rows = np.random.default_rng(0).permutation(len(found.paths))
    n = max(1, len(rows) // 5)
    return data.subset(found, np.sort(rows[n:])), data.subset(found, np.sort(rows[:n])), HIDDEN


def pixels(images: np.ndarray) -> Tensor:
    """uint8 images (n, h, w, 3) as features: float32 (n, h w 3), 0 to 1"""
    return torch.from_numpy(images).flatten(1).float() / 255


def centred(images: np.ndarray) -> Tensor:
    """The same less the mean of each image: stronger where features are compared by cosine."""
    flat = pixels(images)
    return flat - flat.mean(1, keepdim=True)


def scores(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> dict[str, float]:
    """knn_10, knn_20 and linear, shares of queries (m, d) that are right."""
    found = {
        f"knn_{k}": float((vote(bank, labels, queries, k) == truth).float().mean()) for k in KS
    }
    return found | {"linear": linear(bank, labels, queries, truth)}


def vote(bank: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    """The label that the k nearest of bank (n, d) vote for, of each of queries (m, d): (m,)

    Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination".
    """
    bank, k = F.normalize(bank), min(k, len(bank))
    n_classes, found = int(labels.max()) + 1, []
    for batch in queries.split(BATCH):
        cosines, ids = (F.normalize(batch) @ bank.T).topk(k, dim=1)
        votes = bank.new_zeros(len(batch), n_classes)
        votes.scatter_add_(1, labels[ids], ((cosines - 1) / TEMPERATURE).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def linear(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Accuracy on queries (m, d) of logistic regression learned from bank (n, d)."""
    mean, deviation = bank.mean(0), bank.std(0, correction=0).clamp(min=1e-6)
    bank, queries = (bank - mean) / deviation, (queries - mean) / deviation
    n_classes = int(max(labels.max(), truth.max())) + 1
    weight = torch.zeros(n_classes, bank.shape[1], device=bank.device, requires_grad=True)
    bias = torch.zeros(n_classes, device=bank.device, requires_grad=True)
    descent = torch.optim.LBFGS([weight, bias], max_iter=N_STEPS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        descent.zero_grad()
        value = F.cross_entropy(F.linear(bank, weight, bias), labels)
        value = value + PENALTY * weight.square().sum() / 2
        value.backward()
        return value

    descent.step(objective)
    with torch.no_grad():
        return float((F.linear(queries, weight, bias).argmax(1) == truth).float().mean())


def compare(
    trained: Encoder,
    untrained: Encoder,
    cfg: config.Config,
    found: datasets.Images,
    held_out: datasets.Images | None,
) -> dict:
    """Scores of the features, beside those of the untrained network and of the pixels.

    {"scores": ..., "untrained": ..., "raw_pixels": ..., "centred_pixels": ..., "protocol": ...} of
    labelled images.
    """
    bank, queries, what = pair(found, held_out)
    if queries.images.shape[1:] != bank.images.shape[1:]:
        raise UserError(
            f"the images of dataset.test_split are {queries.images.shape[1:3]}, the others "
            f"{bank.images.shape[1:3]}: give dataset.size"
        )
    labels, truth = (torch.from_numpy(each.labels) for each in (bank, queries))
    sees = {
        "scores": lambda images: features(trained, images, cfg.training).cpu(),
        "untrained": lambda images: features(untrained, images, cfg.training).cpu(),
        "raw_pixels": pixels,
        "centred_pixels": centred,
    }
    report: dict = {"n_known": len(labels), "n_asked": len(truth), "protocol": PROTOCOL + what}
    for name, see in sees.items():
        report[name] = scores(see(bank.images), labels, see(queries.images), truth)
    return report
