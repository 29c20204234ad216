"""DINO's loss, and measures of a collapse (Caron et al. 2021, sections 3.1 and 5.3)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def teacher_targets(outputs: Tensor, center: Tensor, temperature: float) -> Tensor:
    """The teacher's distributions, centered and sharpened: (v, b, k), (k,) -> (v, b, k)"""
    return ((outputs.float() - center) / temperature).softmax(-1)


def dino_loss(outputs: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over all pairs of a global view and another view of the same image.

    outputs: the student's (v, b, k), global views first; targets: the teacher's distributions of
    the global views (g, b, k) -> scalar. H(p, q) = -sum p log q.
    """
    # Sum over all combinations minus each view with itself, and -sum p log q = logsumexp s - p.s,
    # so that no tensor of size pairs x b x k is needed.
    scaled = outputs.float() / temperature
    log_norms = scaled.logsumexp(-1)  # (v, b)
    g, v = len(targets), len(outputs)
    all_pairs = (targets.sum(0) * scaled.sum(0)).sum(-1)  # (b,)
    same_view = (targets * scaled[:g]).sum(-1).sum(0)
    cross_entropies = g * log_norms.sum(0) - log_norms[:g].sum(0) - all_pairs + same_view
    return cross_entropies.mean() / (g * v - g)


def koleo(features: Tensor) -> Tensor:
    """Minus the mean log distance to the nearest neighbor, of normalized features (b, d).

    Small if they are spread evenly over the sphere: prevents that outputs differ only along a few
    directions (Sablayrolles et al. 2019, "Spreading vectors for similarity search").
    """
    directions = F.normalize(features.float(), dim=1)
    if len(directions) < 2:
        return directions.sum() * 0
    cosines = (directions @ directions.T).detach().fill_diagonal_(-2)
    distances = (directions - directions[cosines.argmax(1)]).norm(dim=1)
    return -distances.clamp(min=1e-6).log().mean()


@torch.no_grad()
def update_center(center: Tensor, outputs: Tensor, momentum: float) -> None:
    """Moves the center (k,) towards the mean of the teacher's outputs (v, b, k)."""
    center.lerp_(outputs.float().mean((0, 1)), 1 - momentum)


@torch.no_grad()
def entropies(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean entropy of the teacher's distributions (v, b, k), and entropy of their mean.

    As fractions of ln k. Both near 1: every output is uniform. Both near 0: every output is the
    same peak. Either way they are equal, and outputs carry no information about the images.
    """
    scale = torch.log(torch.tensor(float(targets.shape[-1])))
    mean = targets.mean((0, 1))
    entropy = -torch.xlogy(targets, targets).sum(-1).mean()
    return entropy / scale, -torch.xlogy(mean, mean).sum() / scale
