"""Whitening of features before they are clustered (paper, section 3.4)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from common import UserError
from deepcluster_torch import config

CHUNK = 1 << 23  # numbers per chunk of features: 32 MB
MAX_EXACT = 1024  # dimensions above which the principal axes are found by iteration
N_EXTRA = 32  # axes computed beyond those asked for, so that the latter converge
MIN_VARIANCE = 1e-6  # fraction of the largest variance below which an axis is rounding noise


class Whitening(NamedTuple):
    """PCA, whitening and normalization of the rows: mean (d,), projection (d, p)."""

    mean: Tensor
    projection: Tensor

    @classmethod
    def fit(cls, points: Tensor, n_components: int = 256, power: float = -0.5) -> "Whitening":
        """Fits to points (n, d); p is n_components, or less if fewer axes have variance.

        Each axis is multiplied by its variance to that power. Raises UserError if a point is NaN or
        infinite.
        """
        check_finite(points)
        mean = points.mean(0, dtype=torch.float64).float()
        covariance = points.new_zeros(points.shape[1], points.shape[1], dtype=torch.float32)
        for part in points.split(max(1, CHUNK // points.shape[1])):
            centered = part.float() - mean
            covariance.addmm_(centered.T, centered)
        covariance /= max(1, len(points) - 1)
        n_components = max(1, min(n_components, len(points) - 1, points.shape[1]))
        variances, axes = _principal_axes(covariance, n_components)
        kept = variances > max(MIN_VARIANCE * float(variances[0]), 1e-30)
        kept[0] = True  # if all points are equal: one axis, on which they are 0
        return cls(mean, axes[:, kept] * variances[kept].clamp(min=1e-30) ** power)

    def __call__(self, points: Tensor) -> Tensor:
        """Points (n, d) -> (n, p) of length 1; a point at the mean stays 0."""
        parts = points.split(max(1, CHUNK // points.shape[1]))
        return torch.cat(
            [F.normalize((part.float() - self.mean) @ self.projection) for part in parts]
        )


def whiten(features: Tensor, model_cfg: config.Model) -> tuple[Whitening, Tensor]:
    """Fits a whitening to features (n, f) -> the whitening, the points to cluster (n, p).

    Without PCA (pca_dim None) the features are only normalized.
    """
    if model_cfg.pca_dim is None:
        d = features.shape[1]
        identity = torch.eye(d, device=features.device)
        whitening = Whitening(torch.zeros(d, device=features.device), identity)
        return whitening, F.normalize(features)
    whitening = Whitening.fit(features, model_cfg.pca_dim, model_cfg.eigen_power)
    return whitening, whitening(features)


def _principal_axes(covariance: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n largest eigenvalues (n,), in decreasing order, and their eigenvectors (d, n)."""
    d = len(covariance)
    basis = None
    if d > MAX_EXACT and n + N_EXTRA < d:
        # subspace iteration: all 4096 axes would take ten times as long as the first 256
        basis = torch.randn(d, n + N_EXTRA, generator=torch.Generator().manual_seed(0))
        basis = torch.linalg.qr(basis.to(covariance)).Q
        for _ in range(8):
            basis = torch.linalg.qr(covariance @ basis).Q
        covariance = basis.T @ covariance @ basis  # of the points within that subspace
    values, vectors = torch.linalg.eigh(covariance.double())
    values, vectors = values.flip(0)[:n].float(), vectors.flip(1)[:, :n].float()
    return values, vectors if basis is None else basis @ vectors


def check_finite(points: Tensor) -> None:
    """Raises UserError if a row of points (n, d) has NaN or infinity in it."""
    bad = (~points.sum(1, dtype=torch.float32).isfinite()).nonzero()
    if len(bad):
        raise UserError(
            f"the features of {len(bad)} of {len(points)} images are NaN or infinite, the first "
            f"is number {int(bad[0])}: lower training.lr"
        )
