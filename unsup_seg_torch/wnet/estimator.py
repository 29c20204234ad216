"""W-Net as a scikit-learn estimator."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from common import UserError, duplicates, images
from common.estimators import warn
from common.pytorch.device import select_device
from unsup_seg_torch.wnet import config, pred, train


class WNetSegmenter(ClusterMixin, BaseEstimator):
    """Learns labels of pixels from images alone, and segments images into regions.

    X is one image (h, w, 3) or a list of them, uint8 or floats in [0, 1], of any sizes. n_regions
    merges regions until that many are left; without it the hierarchy is cut at `height`. For the
    other parameters see `wnet/config.py`. Invalid values raise ValueError.

    Attributes after `fit`: labels_, what `predict` returns for X; history_, losses by step.
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
        """Trains on the images X."""
        photos, cfg = images.as_image_list(X), self._config()
        if self.n_regions is not None and self.n_regions < 1:
            raise ValueError(f"n_regions is {self.n_regions}: expected 1 or more")
        warn(duplicates.one_color([*map(duplicates.is_one_color, photos)]))
        small = [images.shrink(image, self.max_side) for image in photos]
        state = train.initial_state(cfg, select_device())
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
        """Regions of each image: (h, w) int64 from 0, or a list of them."""

        def regions(result: pred.Segmentation) -> np.ndarray:
            if self.n_regions is not None:
                return result.hierarchy.regions(self.n_regions)
            return result.hierarchy.cut(self.height)

        return self._segment(X, regions)

    def transform(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | list[np.ndarray]:
        """The network's most probable label of each pixel; labels are shared by all images."""
        return self._segment(X, lambda result: result.labels)

    def _segment(
        self, X: ArrayLike | Sequence[ArrayLike], select: Callable[[pred.Segmentation], np.ndarray]
    ) -> np.ndarray | list[np.ndarray]:
        check_is_fitted(self, "history_")
        cfg, label_maps = self._config(), []
        for image in images.as_image_list(X):
            full = images.shrink(image, cfg.dataset.full_side)
            labels = select(pred.segment(self._net, full, cfg))
            label_maps.append(images.resize_labels(labels, image.shape[:2]).astype(np.int64))
        return label_maps[0] if images.is_single_image(X) else label_maps

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
