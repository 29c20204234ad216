"""What DINO minimises, and how a collapse shows (Caron et al. 2021, section 3.1 and 5.3)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def targets(teacher: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """The teacher's distributions, centred and sharpened: (v, b, k), (k,) -> (v, b, k)"""
    return ((teacher.float() - centre) / temperature).softmax(-1)


def dino_loss(student: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over all pairs of a teacher's view and another view of the same image.

    student: outputs (v, b, k) of all views, of which the first ones are the teacher's; wanted:
    distributions (g, b, k) -> a number. H(p, q) = -sum p log q.
    """
    # The sum over pairs is that of all combinations less that of a view with itself, and
    # -sum p log q = log sum exp - p.s, so that nothing of size pairs x b x k is made.
    scaled = student.float() / temperature
    logs = scaled.logsumexp(-1)  # (v, b)
    g, v = len(wanted), len(student)
    together = (wanted.sum(0) * scaled.sum(0)).sum(-1)  # (b,)
    alone = (wanted * scaled[:g]).sum(-1).sum(0)
    entropies = g * logs.sum(0) - logs[:g].sum(0) - together + alone
    return entropies.mean() / (g * v - g)


def koleo(features: Tensor) -> Tensor:
    """Minus the mean log of the distance to the nearest other, of features (b, d) of length 1.

    Small where they are spread evenly over the sphere: against outputs that differ along a few
    directions only (Sablayrolles et al. 2019, "Spreading vectors for similarity search").
    """
    directions = F.normalize(features.float(), dim=1)
    if len(directions) < 2:
        return directions.sum() * 0
    cosines = (directions @ directions.T).detach().fill_diagonal_(-2)
    distances = (directions - directions[cosines.argmax(1)]).norm(dim=1)
    return -distances.clamp(min=1e-6).log().mean()


@torch.no_grad()
def update_centre(centre: Tensor, teacher: Tensor, momentum: float) -> None:
    """Moves the centre (k,) towards the mean of the teacher's outputs (v, b, k)."""
    centre.lerp_(teacher.float().mean((0, 1)), 1 - momentum)


@torch.no_grad()
def entropies(wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Of the teacher's distributions (v, b, k): the mean entropy, and the entropy of their mean.

    As shares of ln k. Both near 1: every image has the uniform output. Both near 0: every image
    has the same one. Either way they are equal, and the outputs say nothing of the images.
    """
    scale = torch.log(torch.tensor(float(wanted.shape[-1])))
    mean = wanted.mean((0, 1))
    each = -torch.xlogy(wanted, wanted).sum(-1).mean()
    return each / scale, -torch.xlogy(mean, mean).sum() / scale
