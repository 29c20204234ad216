"""DTI clustering as scikit-learn estimators.

DTIKMeans(n_clusters=10, random_state=0).fit_predict(images)
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from common import UserError
from dti_torch import config, data, train

BATCH = 256
DROP = 5 / 6  # share of the training after which the learning rate is a tenth


class _DTI(ClusterMixin, TransformerMixin, BaseEstimator):
    def __init__(
        self,
        n_clusters: int = 10,
        *,
        transformations: Sequence[str] = ("identity", "affine", "tps"),
        curriculum: Sequence[float] | None = None,
        encoder: str = "strided",
        init: str = "sample",
        n_init: int = 1,
        n_epochs: int = 60,
        batch_size: int = 64,
        lr: float = 1e-3,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.n_clusters = n_clusters
        self.transformations = transformations
        self.curriculum = curriculum
        self.encoder = encoder
        self.init = init
        self.n_init = n_init
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None):
        images = _images(X)
        if not 1 <= self.n_clusters <= len(images):
            raise ValueError(f"n_clusters is {self.n_clusters}: expected 1 to {len(images)} images")
        seeds = check_random_state(self.random_state).randint(2**31, size=self._whole("n_init"))
        best = np.inf
        for cfg in map(self._config, seeds.tolist()):
            state = _train(cfg, images)
            distances = _distances(state.net, images)
            loss = self._loss(distances)
            if not np.isfinite(loss):
                raise ValueError(f"the loss became {loss}: expected a lower lr than {self.lr}")
            if loss < best:
                best = loss
                self._net, self.n_iter_ = state.net, state.step
                self.labels_, self.loss_ = distances.argmin(1), loss
        shape = np.shape(X)[1:]
        prototypes = self._net.prototypes.detach().movedim(1, -1)
        self.cluster_centers_ = prototypes.cpu().numpy().reshape(-1, *shape)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The nearest cluster of each image (n,)."""
        return self.transform(X).argmin(1)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Distances (n, k) of each image to each prototype that has moved to meet it."""
        check_is_fitted(self)
        images = _images(X)
        found, fitted = np.shape(X)[1:], self.cluster_centers_.shape[1:]
        if found != fitted:
            raise ValueError(f"X has images of shape {found}: expected {fitted}, as in fit")
        return _distances(self._net, images)

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Negative `loss_` on these images: higher is better."""
        return -self._loss(self.transform(X))

    def _config(self, seed: int) -> config.Config:
        for name, value, known in (
            ("init", self.init, ("sample", "kmeans", "soup", "constant")),
            ("encoder", self.encoder, get_args(config.Encoder)),
            *(
                ("transformations", each, get_args(config.Transformation))
                for each in self.transformations
            ),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}: expected {', '.join(known)}")
        curriculum, n_switches = self.curriculum, len(self.transformations) - 1
        if curriculum is None:
            curriculum = [0.5 * (i + 1) / n_switches for i in range(n_switches)]
        n_epochs = self._whole("n_epochs")
        model = config.Model(
            name=self._name,
            n_prototypes=self._whole("n_clusters"),
            init=self.init,
            encoder=self.encoder,
            transformations=tuple(self.transformations),
            curriculum=tuple(curriculum),
        )
        training = config.Training(
            seed=seed,
            lr=self.lr,
            batch_size=self._whole("batch_size"),
            n_epochs=n_epochs,
            milestones=(round(DROP * n_epochs),),
        )
        return config.Config(model=model, training=training)

    def _whole(self, name: str) -> int:
        value = getattr(self, name)
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} is {value!r}: expected a whole number above 0")
        return int(value)


class DTIKMeans(_DTI):
    """K-means whose prototypes move to meet each image before they are compared with it.

    Images (n, h, w) or (n, h, w, c), c 1 or 3, uint8 or floats in [0, 1]. fit(X) raises
    ValueError for others. curriculum: when transformations 2, 3, ... start, as shares of the
    training, evenly over its first half by default. n_init: trainings, of which the lowest loss is
    kept. Distances are mean squared errors of a pixel in [0, 1].

    Fitted: labels_ (n,), cluster_centers_ (k, h, w[, c]) in [0, 1], loss_ (mean distance to the
    nearest prototype), n_iter_ (steps).
    """

    _name = "dtikmeans"

    @staticmethod
    def _loss(distances: np.ndarray) -> float:
        return float(distances.min(1).mean(dtype=np.float64))


class DTIGMM(_DTI):
    """As DTIKMeans, with a Gaussian mixture in the place of K-means.

    Distances are -log of mixing weight times likelihood, in nats; loss_ is the mean negative
    log-likelihood.
    """

    _name = "dtigmm"

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """The posterior of each cluster (n, k), mixing weights included."""
        return softmax(-self.transform(X).astype(np.float64), axis=1)

    @staticmethod
    def _loss(distances: np.ndarray) -> float:
        return -float(logsumexp(-distances.astype(np.float64), axis=1).mean())


def _images(X: ArrayLike) -> Tensor:
    """Images as the training has them (n, c, h, w), on the device; raises ValueError."""
    X = np.asarray(X)
    if X.ndim not in (3, 4) or 0 in X.shape or X.ndim == 4 and X.shape[3] not in (1, 3):
        raise ValueError(f"X is {X.shape}: expected images (n, h, w) or (n, h, w, c), c 1 or 3")
    if X.dtype != np.uint8:
        if X.dtype.kind != "f":
            raise ValueError(f"X is {X.dtype}: expected uint8, or floats in [0, 1]")
        X = X.astype(np.float32)
        if not (X.min() >= 0 and X.max() <= 1):  # nor NaN
            raise ValueError(f"X is {X.min():.4g} to {X.max():.4g}: expected uint8 or [0, 1]")
    X = np.require(X, requirements=["C", "W"])  # what torch takes without a copy or a warning
    return data.to_device(X if X.ndim == 4 else X[..., None], train.device())


def _train(cfg: config.Config, images: Tensor) -> train.State:
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            state = train.begin(cfg, images)
        except UserError as error:
            raise ValueError(str(error)) from None
        for _ in range(cfg.training.n_epochs):
            for _ in train.train_epoch(cfg, state, images):
                pass
    state.net.eval()
    return state


@torch.no_grad()
def _distances(net: torch.nn.Module, images: Tensor) -> np.ndarray:
    parts = [net(data.to_float(part)) for part in images.split(BATCH)]
    return torch.cat(parts).cpu().numpy()
