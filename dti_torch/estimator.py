"""DTI clustering as scikit-learn estimators, on arrays of images."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from common import UserError, duplicates
from common.estimators import check_choice, check_images, warn
from common.pytorch.device import select_device
from dti_torch import cluster, config, data, train

MIN_EPOCHS, MIN_STEPS = 15, 1500  # of a training if n_epochs is None
# Tuned on the handwritten digits; fractions of the training.
FIRST_START, LAST_START = 0.04, 0.35  # of the transformations if curriculum is None
SURPLUS, PRUNING = 1.0, (0.52, 0.76)
COSINE_FROM = 0.83


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
        n_epochs: int | None = None,
        batch_size: int = 64,
        lr: float = 2e-3,
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

    def fit(self, X: ArrayLike, y: object = None) -> "_DTI":
        """Trains `n_init` times on images X and keeps the lowest loss."""
        images = _images(X)
        n_init, random = self._count("n_init"), check_random_state(self.random_state)
        warn(duplicates.few_distinct(np.asarray(X), self._count("n_clusters")))
        fits = []
        for seed in random.randint(2**31, size=n_init).tolist():
            state, distances = _train(self._config(seed, len(images)), images)
            fits.append((self._loss(distances), state, distances.argmin(1)))
        self.loss_, state, self.labels_ = min(fits, key=lambda fit: fit[0])
        self.n_iter_, self._net = state.step, state.net
        prototypes = state.net.prototypes.detach().movedim(1, -1).cpu().numpy()
        self.cluster_centers_ = prototypes.reshape(-1, *np.shape(X)[1:]).copy()
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The nearest cluster of each image (n,)."""
        return self.transform(X).argmin(1)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Distances (n, k) of each image to each prototype transformed to match it."""
        check_is_fitted(self)
        images = _images(X)
        shape, expected = np.shape(X)[1:], self.cluster_centers_.shape[1:]
        if shape != expected:
            raise ValueError(f"X has images of shape {shape}: expected {expected}, as in fit")
        return cluster.distances(self._net, images).cpu().numpy()

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The negative loss; for the images of `fit` this is -loss_."""
        return -self._loss(self.transform(X))

    def _config(self, seed: int, n: int) -> config.Config:
        k, batch_size = self._count("n_clusters"), self._count("batch_size")
        if k > n:
            raise ValueError(f"n_clusters is {k}, but X has only {n} images")
        for transformation in self.transformations:
            check_choice("transformations", transformation, config.Transformation)
        check_choice("encoder", self.encoder, config.Encoder)
        check_choice("init", self.init, config.Init)
        n_steps = len(list(data.batch_bounds(n, batch_size)))  # per epoch
        min_epochs = max(MIN_EPOCHS, -(-MIN_STEPS // n_steps))
        n_starts = max(0, len(self.transformations) - 1)
        starts = np.linspace(FIRST_START, LAST_START, n_starts)
        return config.Config(
            model=config.Model(
                name=self._name,
                n_prototypes=k,
                init=self.init,
                encoder=self.encoder,
                transformations=tuple(self.transformations),
                curriculum=tuple(starts if self.curriculum is None else self.curriculum),
                surplus=SURPLUS,
                pruning=PRUNING,
            ),
            training=config.Training(
                seed=seed,
                lr=self.lr,
                batch_size=batch_size,
                n_epochs=min_epochs if self.n_epochs is None else self._count("n_epochs"),
                cosine_from=COSINE_FROM,
                check_interval=max(20, n_steps),
            ),
        )

    def _count(self, name: str) -> int:
        value = getattr(self, name)
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} is {value!r}: expected an integer above 0")
        return int(value)


class DTIKMeans(_DTI):
    """K-means whose prototypes are transformed to match each image before they are compared.

    Images are (n, h, w) or (n, h, w, c) with 1 or 3 channels, uint8 or floats in [0, 1]; others
    raise ValueError. curriculum: when the transformations after the first start, as fractions of
    the training or in epochs. Distances are mean squared errors of pixels in [0, 1].

    After `fit`: labels_ (n,), cluster_centers_ (k, h, w[, c]) in [0, 1], loss_, the mean distance
    to the nearest prototype, and n_iter_, the number of steps.
    """

    _name = "dtikmeans"

    @staticmethod
    def _loss(distances: np.ndarray) -> float:
        return float(distances.min(1).mean(dtype=np.float64))


class DTIGMM(_DTI):
    """As DTIKMeans, with a Gaussian mixture instead of K-means.

    Distances are -log of mixing weight times likelihood, in nats; `score` is the mean
    log-likelihood and loss_ its negative.
    """

    _name = "dtigmm"

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """The posterior of each cluster (n, k); rows sum to 1."""
        return softmax(-self.transform(X).astype(np.float64), axis=1)

    @staticmethod
    def _loss(distances: np.ndarray) -> float:
        return -float(logsumexp(-distances.astype(np.float64), axis=1).mean())


def _images(X: ArrayLike) -> Tensor:
    """Tensor (n, c, h, w), uint8 or float32, on the device; raises ValueError."""
    # PyTorch warns about arrays that cannot be written to
    pixels = np.require(check_images(X, (1, 3)), requirements=["C", "W"])
    return data.to_device(pixels, select_device())


def _train(cfg: config.Config, images: Tensor) -> tuple[train.State, np.ndarray]:
    """The trained state and the distances (n, k); raises ValueError if they become NaN."""
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            state = train.initial_state(cfg, images)
        for _ in range(cfg.training.n_epochs):
            for _ in train.train_epoch(cfg, state, images):
                pass
        state.net.eval()
        distances = cluster.distances(state.net, images).cpu().numpy()
    except UserError as error:
        raise ValueError(str(error)) from None
    if not np.isfinite(distances).all():
        raise ValueError(
            f"the distances became NaN or infinite with lr {cfg.training.lr}: lower it"
        )
    return state, distances
