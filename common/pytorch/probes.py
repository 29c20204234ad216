"""Evaluation of features with labels: weighted k-NN and a linear probe."""

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07  # a neighbor's vote has weight exp(cosine / temperature)
BATCH = 256  # queries at once
MAX_ITERATIONS, L2_PENALTY = 100, 1e-3  # of the logistic regression


def knn_predict(bank: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    """Labels (m,) of queries (m, d), by a weighted vote of their k nearest in bank (n, d).

    labels (n,). Nearness is the cosine. Wu et al. 2018, "Unsupervised feature learning via
    non-parametric instance discrimination".
    """
    bank, k = F.normalize(bank), min(k, len(bank))
    n_classes, predicted = int(labels.max()) + 1, []
    for batch in queries.split(BATCH):
        cosines, ids = (F.normalize(batch) @ bank.T).topk(k, dim=1)
        votes = bank.new_zeros(len(batch), n_classes)
        votes.scatter_add_(1, labels[ids], ((cosines - 1) / TEMPERATURE).exp())
        predicted.append(votes.argmax(1))
    return torch.cat(predicted)


def knn_accuracy(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, k: int) -> float:
    """Share of queries (m, d) whose label (m,) `knn_predict` finds."""
    return float((knn_predict(bank, labels, queries, k) == truth).float().mean())


def linear_accuracy(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Accuracy on queries (m, d) of a logistic regression trained on bank (n, d).

    labels (n,), truth (m,). Features are standardized with the statistics of the bank.
    """
    mean, deviation = bank.mean(0), bank.std(0, correction=0).clamp(min=1e-6)
    bank, queries = (bank - mean) / deviation, (queries - mean) / deviation
    n_classes = int(max(labels.max(), truth.max())) + 1
    weight = torch.zeros(n_classes, bank.shape[1], device=bank.device, requires_grad=True)
    bias = torch.zeros(n_classes, device=bank.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(bank, weight, bias), labels)
        loss = loss + L2_PENALTY * weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(objective)
    with torch.no_grad():
        return float((F.linear(queries, weight, bias).argmax(1) == truth).float().mean())
