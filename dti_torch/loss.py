"""Losses of DTI clustering (Monnier et al. 2020, equations 3 and 6)."""

import math

import torch
from torch import Tensor


def prototype_distances(
    images: Tensor, prototypes: Tensor, pixel_weights: Tensor | float = 1.0
) -> Tensor:
    """Mean squared pixel error between images and prototypes transformed to match them.

    images (..., c, h, w); prototypes (..., c, h, w), broadcast; pixel_weights (h, w) -> (...)
    """
    return ((images - prototypes).square() * pixel_weights).mean((-3, -2, -1))


def negative_log_likelihood(
    images: Tensor, means: Tensor, variances: Tensor, pixel_weights: Tensor | float = 1.0
) -> Tensor:
    """-log N(images; means, diagonal variances), summed over pixels, in nats.

    All (..., c, h, w), broadcast; pixel_weights (h, w) -> (...). Mixing weights are not included.
    """
    terms = (images - means).square() / variances + variances.log() + math.log(2 * math.pi)
    return 0.5 * (terms * pixel_weights).sum((-3, -2, -1))


def responsibilities(negative_log_likelihoods: Tensor, mixing_logits: Tensor) -> Tensor:
    """Posterior of each prototype given the image (equation 5): (b, k), (k,) -> (b, k)."""
    return torch.softmax(mixing_logits.log_softmax(0) - negative_log_likelihoods, dim=1)


def gaussian_pixel_weights(height: int, width: int, std: float) -> Tensor:
    """A Gaussian of `std` pixels that is 1 at the center of the image -> (h, w)."""
    ys = torch.arange(height) - (height - 1) / 2
    xs = torch.arange(width) - (width - 1) / 2
    return torch.exp(-(ys[:, None].square() + xs.square()) / (2 * std**2))
