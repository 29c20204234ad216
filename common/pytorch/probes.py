"""Evaluation of features with labels: weighted k-NN and a linear probe."""

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07  # votes are weighted by exp(cosine / temperature)
TIE = 2e-6  # difference in float32 up to which cosines are equal, and relative one of votes
BATCH = 256  # queries per batch
MAX_ITERATIONS, L2_PENALTY = 100, 1e-3  # of the logistic regression


def knn_predict(bank: Tensor, labels: Tensor, queries: Tensor, k: int) -> Tensor:
    """Weighted k-NN: labels (m,) for queries (m, d) from the labels (n,) of bank (n, d).

    Neighbors by cosine similarity. Points as similar as the k-th neighbor, up to rounding, share
    the votes of the places left for them, and of labels with equal votes the lowest wins: the order
    of the rows makes no difference. Wu et al. 2018, "Unsupervised feature learning via
    non-parametric instance discrimination".
    """
    bank, k = F.normalize(bank), min(k, len(bank))
    n_classes = int(labels.max()) + 1
    predicted = []
    for batch in queries.split(BATCH):
        cosines = F.normalize(batch) @ bank.T  # (b, n)
        nearest, ids = cosines.topk(min(k + 1, len(bank)), dim=1)
        votes = bank.new_zeros(len(batch), n_classes)
        votes.scatter_add_(1, labels[ids[:, :k]], _vote(nearest[:, :k]))
        lowest = nearest[:, k - 1 : k] - TIE  # (b, 1)
        is_tied = (nearest[:, k:] >= lowest).any(1)  # also with a point that is not among the k
        if is_tied.any():
            cosines, lowest = cosines[is_tied], lowest[is_tied]
            is_nearer = cosines > lowest + 2 * TIE
            tied = ((cosines >= lowest) & ~is_nearer).float()
            share = (k - is_nearer.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
            weights = (is_nearer + tied * share) * _vote(cosines)
            votes[is_tied] = votes.new_zeros(len(weights), n_classes).index_add_(1, labels, weights)
        best = votes.max(1, keepdim=True).values
        predicted.append((votes >= best * (1 - TIE)).int().argmax(1))
    return torch.cat(predicted)


def _vote(cosines: Tensor) -> Tensor:
    return ((cosines - 1) / TEMPERATURE).exp()


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
