"""Feature clustering of a picture in the manner of scikit-learn."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from common import UserError
from dfc_tf import config, data, regions, train


class DFC(ClusterMixin, BaseEstimator):
    """Segments a picture (h, w) or (h, w, c) by training a small network on it alone.

    Integers are divided by the largest of their kind, floats outside [0, 1] are stretched. The
    parameters are those of `config.py`, the defaults those of configs/fast.yml. n_labels, if given,
    merges labels until so many are left. Wrong values raise ValueError.

    After `fit`: labels_ (h, w), the largest first; n_labels_; history_ with one row an iteration of
    similarity, continuity and number of labels.
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
        """Trains on the picture X. scribbles (h, w) int: a class from 0, below 0 unmarked."""
        image, cfg = _image(X), self._config()
        picture = self._picture(image)
        if scribbles is not None:
            picture = dataclasses.replace(picture, scribbles=_scribbles(scribbles, image, picture))
        try:
            train.check(cfg, picture)
            self._state = train.State(cfg, image.shape[2])
            labels, self.history_ = train.fit(cfg, self._state, picture)
        except UserError as error:
            raise ValueError(str(error)) from None
        self.labels_ = self._finish(labels, image, picture)
        self.n_labels_ = int(self.labels_.max()) + 1
        return self

    def fit_predict(
        self, X: ArrayLike, y: object = None, scribbles: ArrayLike | None = None
    ) -> np.ndarray:
        """The labels (h, w) of the picture that is trained on."""
        return self.fit(X, y, scribbles).labels_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The channel that wins each pixel of another picture: (h, w), the same in all pictures.

        These are numbers of the network's outputs; nothing is merged or renumbered, so that they
        stay comparable between pictures.
        """
        check_is_fitted(self, "labels_")
        image = _image(X)
        if image.shape[2] != self._state.net.n_channels:
            expected = self._state.net.n_channels
            raise ValueError(f"X has {image.shape[2]} channels: expected {expected}, as in fit")
        labels = train.predict(self._state.net, self._picture(image).image, self.frozen_statistics)
        return data.nearest(labels, image.shape[:2]).astype(np.int64)

    def _picture(self, image: np.ndarray) -> data.Picture:
        reduced = data.resize(image, data.fit(image.shape[:2], self.max_side))
        return data.Picture("", "", reduced, data.to_rgb(reduced))

    def _finish(self, labels: np.ndarray, image: np.ndarray, picture: data.Picture) -> np.ndarray:
        finished = regions.finish(labels, picture.image, self._config().model)
        return data.nearest(finished, image.shape[:2])

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
        return data.to_unit(np.asarray(X))
    except ValueError as error:
        raise ValueError(f"X: {error}") from None


def _scribbles(scribbles: ArrayLike, image: np.ndarray, picture: data.Picture) -> np.ndarray:
    mask = np.asarray(scribbles)
    if mask.shape != image.shape[:2] or mask.dtype.kind not in "iu":
        raise ValueError(
            f"scribbles are {mask.shape} of {mask.dtype}: expected {image.shape[:2]} of integers"
        )
    if mask.max() < 0:
        raise ValueError("scribbles mark nothing: expected a class from 0 on at some pixels")
    mask = np.where(mask < 0, -1, mask)
    classes = np.unique(mask[mask >= 0])
    mask = np.where(mask < 0, -1, np.searchsorted(classes, mask))
    return data.shrink_mask(mask, picture.image.shape[:2])
