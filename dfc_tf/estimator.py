"""Feature clustering of an image as a scikit-learn estimator."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from common import UserError, duplicates, images
from common.estimators import warn
from dfc_tf import config, data, regions, train


class DFC(ClusterMixin, BaseEstimator):
    """Segments an image (h, w) or (h, w, c) by training a small network on it alone.

    The parameters are those of `config.py`, with the defaults of configs/fast.yml; train_side is
    training.max_side. Values are scaled to [0, 1] as in `data.to_float`. Invalid ones raise
    ValueError.

    Attributes after `fit`: labels_ (h, w), the largest label first; n_labels_; history_
    (iterations, 3) with similarity loss, continuity loss and number of labels.
    """

    def __init__(
        self,
        n_labels: int | None = None,
        *,
        n_iterations: int = 40,
        mu: float = 1.0,
        n_blocks: int = 2,
        width: int = 48,
        n_clusters: int = 64,
        min_labels: int = 3,
        regions: str = "majority",
        min_area: float = 0.0,
        superpixels: int = 0,
        optimizer: str = "sgd",
        lr: float = 0.1,
        train_side: int | None = 120,
        max_side: int = 1024,
        frozen_statistics: bool = False,
        random_state: int = 0,
    ):
        self.n_labels = n_labels
        self.n_iterations = n_iterations
        self.mu = mu
        self.n_blocks = n_blocks
        self.width = width
        self.n_clusters = n_clusters
        self.min_labels = min_labels
        self.regions = regions
        self.min_area = min_area
        self.superpixels = superpixels
        self.optimizer = optimizer
        self.lr = lr
        self.train_side = train_side
        self.max_side = max_side
        self.frozen_statistics = frozen_statistics
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None, scribbles: ArrayLike | None = None) -> "DFC":
        """Trains on the image X. scribbles (h, w) int: classes from 0, negative where unmarked."""
        image, cfg = _image(X), self._config()
        sample = self._sample(image)
        warn(duplicates.one_color([duplicates.is_one_color(image)]))
        if scribbles is not None:
            sample = dataclasses.replace(sample, scribbles=_scribbles(scribbles, image, sample))
        try:
            train.check_scribbles(cfg, sample)
            self._state = train.State(cfg, image.shape[2])
            labels, self.history_ = train.fit(cfg, self._state, sample)
        except UserError as error:
            raise ValueError(str(error)) from None
        labels = regions.postprocess(labels, sample.image, cfg.model)
        self.labels_ = images.resize_labels(labels, image.shape[:2])
        self.n_labels_ = int(self.labels_.max()) + 1
        return self

    def fit_predict(
        self, X: ArrayLike, y: object = None, scribbles: ArrayLike | None = None
    ) -> np.ndarray:
        """Trains on the image X and returns its labels (h, w)."""
        return self.fit(X, y, scribbles).labels_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The winning channel at each pixel of another image: (h, w).

        Channels are neither merged nor renumbered, so they are comparable between images.
        """
        check_is_fitted(self, "labels_")
        image = _image(X)
        if image.shape[2] != self._state.net.n_channels:
            expected = self._state.net.n_channels
            raise ValueError(f"X has {image.shape[2]} channels: expected {expected}, as in fit")
        labels = train.predict(self._state.net, self._sample(image).image, self.frozen_statistics)
        return images.resize_labels(labels, image.shape[:2]).astype(np.int64)

    def _sample(self, image: np.ndarray) -> data.Sample:
        return data.Sample(data.resize(image, images.fit_within(image.shape[:2], self.max_side)))

    def _config(self) -> config.Config:
        if self.regions not in ("none", "majority", "merge"):
            raise ValueError(f"regions is {self.regions!r}: expected none, majority or merge")
        if self.optimizer not in ("sgd", "adam"):
            raise ValueError(f"optimizer is {self.optimizer!r}: expected sgd or adam")
        return config.Config(
            dataset=config.Dataset(max_side=self.max_side),
            model=config.Model(
                n_blocks=self.n_blocks,
                width=self.width,
                n_clusters=self.n_clusters,
                superpixels=self.superpixels,
                frozen_statistics=self.frozen_statistics,
                regions=self.regions,
                n_labels=self.n_labels,
                min_area=self.min_area,
            ),
            training=config.Training(
                seed=self.random_state,
                optimizer=self.optimizer,
                lr=self.lr,
                n_iterations=self.n_iterations,
                min_labels=self.min_labels,
                mu=self.mu,
                max_side=self.train_side,
            ),
        )


def _image(X: ArrayLike) -> np.ndarray:
    try:
        return data.to_float(np.asarray(X))
    except ValueError as error:
        raise ValueError(f"X: {error}") from None


def _scribbles(scribbles: ArrayLike, image: np.ndarray, sample: data.Sample) -> np.ndarray:
    mask = np.asarray(scribbles)
    if mask.shape != image.shape[:2] or mask.dtype.kind not in "iu":
        raise ValueError(
            f"scribbles are {mask.shape} {mask.dtype}: expected {image.shape[:2]} integers"
        )
    if mask.max() < 0:
        raise ValueError("scribbles mark nothing: expected classes from 0 at some pixels")
    mask = np.where(mask < 0, -1, mask)
    classes = np.unique(mask[mask >= 0])
    mask = np.where(mask < 0, -1, np.searchsorted(classes, mask))
    return data.shrink_mask(mask, sample.image.shape[:2])
