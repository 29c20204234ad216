"""Evaluation of features with labels: weighted k-NN and a linear probe."""

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07  # votes are weighted by exp(cosine / temperature)
BATCH = 256  # queries per batch
MAX_ITERATIONS, L2_PENALTY = 100, 1e-3  # of the logistic regression


def knn_predict(bank: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    """Weighted k-NN: labels (m,) for queries (m, d) from the labels (n,) of bank (n, d).

    Neighbors by cosine similarity. Wu et al. 2018, "Unsupervised feature learning via
    non-parametric instance discrimination".
    """
    bank, k = F.normalize(bank), min(k, len(bank))
    n_classes = int(labels.max()) + 1
    predicted = []
    for batch in queries.split(BATCH):
        cosines, ids = (F.normalize(batch) @ bank.T).topk(k, dim=1)
        votes = bank.new_zeros(len(batch), n_classes)
        votes.scatter_add_(1, labels[ids], ((cosines - 1) / TEMPERATURE).exp())
        predicted.append(votes.argmax(1))
    return torch.cat(predicted)


def knn_accuracy(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, k: int) -> float:
    """Accuracy of `knn_predict` on queries (m, d) with labels truth (m,)."""
    return float((knn_predict(bank, labels, queries, k) == truth).double().mean())


def linear_accuracy(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Accuracy on queries (m, d) of a logistic regression trained on bank (n, d).

    labels (n,) of the bank, truth (m,) of the queries. Features are standardized by the statistics
    of the bank.
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
        return float((F.linear(queries, weight, bias).argmax(1) == truth).double().mean())
