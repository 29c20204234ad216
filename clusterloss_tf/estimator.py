"""Metric learning as a scikit-learn estimator, on arrays of images."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from clusterloss_tf import config, train
from common import UserError, duplicates, metrics
from common.estimators import check_choice, check_images, check_labels, warn


class MetricLearner(TransformerMixin, BaseEstimator):
    """Learns embeddings in which images with the same label are close.

    Images are (n, h, w) or (n, h, w, c), uint8 or floats in [0, 1]; labels (n,) are integers or
    strings. Parameters are those of `config.py`, defaults those of configs/digits.yml. Invalid
    values raise ValueError.

    After `fit`: classes_, and losses_ with the loss of each step.
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        loss: str = "facility",
        gamma: float = 64.0,
        refine: str = "greedy",
        depth: int = 13,
        growth: int = 12,
        n_epochs: int = 30,
        batch_size: int = 64,
        images_per_class: int = 4,
        lr: float = 2e-3,
        augment: str = "crop",
        random_state: int = 0,
    ):
        self.dim = dim
        self.loss = loss
        self.gamma = gamma
        self.refine = refine
        self.depth = depth
        self.growth = growth
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.images_per_class = images_per_class
        self.lr = lr
        self.augment = augment
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> "MetricLearner":
        """Trains on images X with labels y of two or more classes."""
        images = check_images(X)
        labels = check_labels(y, len(images), n_classes=2)
        warn(duplicates.few_distinct(images, len(np.unique(labels))))
        self._state, self.losses_ = train.State(self._config(), images, labels), []
        try:
            for _ in range(self.n_epochs):
                self.losses_ += train.train_epoch(self._state, images)
        except UserError as error:
            raise ValueError(str(error)) from None
        self.classes_ = self._state.classes
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Embeddings (n, dim) of images X, unit vectors."""
        check_is_fitted(self, "classes_")
        images, expected = check_images(X), self._state.net.input_shape[1:]
        if images.shape[1:] != expected:
            raise ValueError(f"X has images {images.shape[1:]}: expected {expected}, as in fit")
        try:
            return self._state.embed(images)
        except UserError as error:
            raise ValueError(str(error)) from None

    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Recall@1: the fraction of images X whose nearest other image has the same label y."""
        embeddings = self.transform(X)
        return metrics.recall_at_k(embeddings, check_labels(y, len(embeddings)), [1])[1]

    def _config(self) -> config.Config:
        check_choice("loss", self.loss, config.Loss)
        check_choice("refine", self.refine, config.Refine)
        check_choice("augment", self.augment, config.Augment)
        return config.Config(
            model=config.Model(depth=self.depth, growth=self.growth, dim=self.dim),
            training=config.Training(
                seed=self.random_state,
                loss=self.loss,
                gamma=self.gamma,
                refine=self.refine,
                lr=self.lr,
                batch_size=self.batch_size,
                images_per_class=self.images_per_class,
                augment=self.augment,
                n_epochs=self.n_epochs,
            ),
        )
