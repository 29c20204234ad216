"""W-Net in the manner of scikit-learn."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from common import UserError
from unsup_seg_torch import config, data, pred, train


class WNetSegmenter(ClusterMixin, BaseEstimator):
    """Learns labels of pixels from pictures alone, and gives every picture its regions.

    X is one picture (h, w, 3) or a list of them, uint8 or floats in [0, 1], of any sizes. n_regions
    joins regions until so many are left; without it they are cut at `height`. The parameters
    are those of `config.py`. Wrong values raise ValueError.

    After `fit`: labels_, as `predict` gives them for X; history_ with the losses of the steps.
    """

    def __init__(
        self,
        n_clusters: int = 16,
        *,
        n_regions: int | None = None,
        height: float = 3.5,
        regions: str = "felzenszwalb",
        width: int = 16,
        depth: int = 4,
        mode: str = "alternating",
        n_epochs: int = 10,
        crops: int | None = None,
        crop: int | None = 96,
        batch_size: int = 8,
        lr: float = 1e-3,
        max_side: int | None = 240,
        crf_iterations: int = 5,
        random_state: int = 0,
    ):
        self.n_clusters = n_clusters
        self.n_regions = n_regions
        self.height = height
        self.regions = regions
        self.width = width
        self.depth = depth
        self.mode = mode
        self.n_epochs = n_epochs
        self.crops = crops
        self.crop = crop
        self.batch_size = batch_size
        self.lr = lr
        self.max_side = max_side
        self.crf_iterations = crf_iterations
        self.random_state = random_state

    def fit(self, X: ArrayLike | Sequence[ArrayLike], y: object = None) -> "WNetSegmenter":
        """Trains on the pictures X."""
        images, cfg = as_pictures(X), self._config()
        if self.n_regions is not None and self.n_regions < 1:
            raise ValueError(f"n_regions is {self.n_regions}: expected 1 or more")
        small = [data.reduce(image, self.max_side) for image in images]
        state = train.begin(cfg, train.device())
        self.history_ = []
        try:
            for _ in range(cfg.training.n_epochs):
                steps = train.train_epoch(cfg, state, small)
                self.history_ += [values for values in steps if values]
        except UserError as error:
            raise ValueError(str(error)) from None
        self._net = state.net.eval()
        self.labels_ = self.predict(X)
        return self

    def predict(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | list[np.ndarray]:
        """Regions of each picture: (h, w) int64 from 0, or a list of them."""

        def regions(of: pred.Segmentation) -> np.ndarray:
            if self.n_regions is not None:
                return of.hierarchy.regions(self.n_regions)
            return of.hierarchy.cut(self.height)

        return self._labels(X, regions)

    def transform(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | list[np.ndarray]:
        """The most probable of the network's labels at each pixel, the same in all pictures."""
        return self._labels(X, lambda of: of.labels)

    def _labels(
        self, X: ArrayLike | Sequence[ArrayLike], which: Callable[[pred.Segmentation], np.ndarray]
    ) -> np.ndarray | list[np.ndarray]:
        check_is_fitted(self, "history_")
        cfg, found = self._config(), []
        for image in as_pictures(X):
            full = data.reduce(image, cfg.dataset.full_side)
            labels = which(pred.segment(self._net, full, cfg))
            found.append(data.nearest(labels, image.shape[:2]).astype(np.int64))
        return found[0] if is_one(X) else found

    def _config(self) -> config.Config:
        for name, known in (("regions", ("labels", "felzenszwalb")),
                            ("mode", ("alternating", "joint"))):  # fmt: skip
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: expected {' or '.join(known)}"
                )
        return config.Config(
            dataset=config.Dataset(max_side=self.max_side, crop=self.crop),
            model=config.Model(
                n_clusters=self.n_clusters,
                width=self.width,
                depth=self.depth,
                crf_iterations=self.crf_iterations,
                regions=self.regions,
                height=self.height,
            ),
            training=config.Training(
                seed=self.random_state,
                mode=self.mode,
                lr=self.lr,
                batch_size=self.batch_size,
                n_epochs=self.n_epochs,
                crops=self.crops,
            ),
        )


def is_one(X: ArrayLike | Sequence[ArrayLike]) -> bool:
    return not isinstance(X, list | tuple) and np.ndim(X) == 3


def as_pictures(X: ArrayLike | Sequence[ArrayLike]) -> list[np.ndarray]:
    """Each as uint8 (h, w, 3)."""
    images = [np.asarray(image) for image in ([X] if is_one(X) else X)]
    if not images:
        raise ValueError("X is empty: expected a picture (h, w, 3) or several")
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"picture {i} of X is {image.shape}: expected (h, w, 3)")
        if image.dtype != np.uint8:
            if image.dtype.kind != "f" or not (0 <= image.min() and image.max() <= 1):
                raise ValueError(f"picture {i} of X is {image.dtype}: expected uint8, or 0 to 1")
            images[i] = np.rint(image * 255).astype(np.uint8)
    return images
