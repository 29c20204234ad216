"""Evaluation of the features of labeled images: k-NN and linear probe (section 4.1)."""

import numpy as np
import torch
from torch import Tensor

from common import UserError, datasets
from common.pytorch.precision import autocast
from common.pytorch.probes import knn_accuracy, linear_accuracy
from unsup_seg_torch.dino import config, data
from unsup_seg_torch.vit.encoder import Encoder

KS = (10, 20)
BATCH = 256
PROTOCOL = (
    "k-NN: weighted vote of the nearest neighbors by cosine similarity of the teacher's class "
    "token; linear: logistic regression on it. Queries: {queries}."
)
TEST_SPLIT = "images of dataset.test_split"
TRAINING_IMAGES = "every fifth image, whose label is held out but which the training has seen"


@torch.no_grad()
def features(encoder: Encoder, pixels: np.ndarray, training: config.Training) -> Tensor:
    """The class token's features of uint8 images (n, h, w, 3): float32 (n, d)"""
    device, parts = encoder.mean.device, []
    for first in range(0, len(pixels), BATCH):
        batch = torch.from_numpy(pixels[first : first + BATCH]).permute(0, 3, 1, 2).to(device)
        with autocast(training.precision, device):
            parts.append(encoder(batch.float() / 255)[:, 0].float())
    return torch.cat(parts)


def bank_and_queries(
    dataset: datasets.Images, test_split: datasets.Images | None
) -> tuple[datasets.Images, datasets.Images, str]:
    """Images of the bank, images of the queries, and a description of the queries."""
    if test_split is not None and test_split.labels is not None:
        return dataset, test_split, TEST_SPLIT
    rows = np.random.default_rng(0).permutation(len(dataset.paths))
    n = max(1, len(rows) // 5)
    bank, queries = np.sort(rows[n:]), np.sort(rows[:n])
    return data.subset(dataset, bank), data.subset(dataset, queries), TRAINING_IMAGES


def raw_pixels(pixels: np.ndarray) -> Tensor:
    """uint8 images (n, h, w, 3) as features: float32 (n, h w 3), 0 to 1"""
    return torch.from_numpy(pixels).flatten(1).float() / 255


def centered_pixels(pixels: np.ndarray) -> Tensor:
    """The same minus the mean of each image: a stronger baseline for cosine similarity."""
    flat = raw_pixels(pixels)
    return flat - flat.mean(1, keepdim=True)


def scores(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> dict[str, float]:
    """Accuracies knn_10, knn_20 and linear on queries (m, d), for a bank (n, d)."""
    knn = {f"knn_{k}": knn_accuracy(bank, labels, queries, truth, k) for k in KS}
    return knn | {"linear": linear_accuracy(bank, labels, queries, truth)}


def compare(
    trained: Encoder,
    untrained: Encoder,
    cfg: config.Config,
    dataset: datasets.Images,
    test_split: datasets.Images | None,
) -> dict:
    """Scores of the features, of those of the untrained network, and of the pixels.

    {"scores": ..., "untrained": ..., "raw_pixels": ..., "centered_pixels": ..., "protocol": ...} of
    labeled images. Raises UserError.
    """
    bank, queries, description = bank_and_queries(dataset, test_split)
    if queries.images.shape[1:] != bank.images.shape[1:]:
        raise UserError(
            f"images of dataset.test_split are {queries.images.shape[1:3]}, the others "
            f"{bank.images.shape[1:3]}: set dataset.size"
        )
    labels, truth = (torch.from_numpy(each.labels) for each in (bank, queries))
    feature_functions = {
        "scores": lambda pixels: features(trained, pixels, cfg.training).cpu(),
        "untrained": lambda pixels: features(untrained, pixels, cfg.training).cpu(),
        "raw_pixels": raw_pixels,
        "centered_pixels": centered_pixels,
    }
    report: dict = {"n_bank": len(labels), "n_queries": len(truth)}
    report["protocol"] = PROTOCOL.format(queries=description)
    for name, function in feature_functions.items():
        report[name] = scores(function(bank.images), labels, function(queries.images), truth)
    return report
