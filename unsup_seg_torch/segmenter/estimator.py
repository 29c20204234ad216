"""Segmenter in the manner of scikit-learn."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from common import UserError, metrics
from unsup_seg_torch import estimator, train
from unsup_seg_torch.segmenter import config, data, model, windows
from unsup_seg_torch.segmenter import train as training


class PixelClassifier(ClassifierMixin, BaseEstimator):
    """Learns the labels of pixels from labelled pictures (Strudel et al. 2021).

    X is one picture (h, w, 3) or a list of them, uint8 or floats in [0, 1], of any sizes; y one map
    (h, w) of integers from 0, or as many, 255 where there is no label. The parameters are those of
    `segmenter/config.py`. Wrong values raise ValueError.

    After `fit`: classes_, history_ with the losses of the steps.
    """

    def __init__(
        self,
        *,
        backbone: str | None = None,
        pretrained: bool = False,
        patch_size: int = 8,
        width: int = 192,
        depth: int = 6,
        n_heads: int | None = None,
        decoder: str = "mask",
        cells: int = 1,
        crop: tuple[int, int] = (128, 128),
        short_side: int | None = None,
        optimizer: str = "adamw",
        lr: float = 1e-3,
        batch_size: int = 8,
        n_epochs: int = 30,
        flip: bool = False,
        random_state: int = 0,
    ):
        self.backbone = backbone
        self.pretrained = pretrained
        self.patch_size = patch_size
        self.width = width
        self.depth = depth
        self.n_heads = n_heads
        self.decoder = decoder
        self.cells = cells
        self.crop = crop
        self.short_side = short_side
        self.optimizer = optimizer
        self.lr = lr
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.flip = flip
        self.random_state = random_state

    def fit(
        self, X: ArrayLike | Sequence[ArrayLike], y: ArrayLike | Sequence[ArrayLike]
    ) -> "PixelClassifier":
        """Trains on the pictures X and their labels y."""
        pictures, truths, cfg = estimator.as_pictures(X), _labels(X, y), self._config()
        scenes = _Scenes(pictures, truths, cfg.dataset.short_side)
        try:
            state = training.begin(cfg, scenes.n_classes, train.device())
            model.start_weights(cfg.model, state.net.encoder)
            self.history_ = []
            for _ in range(cfg.training.n_epochs):
                steps = training.train_epoch(cfg, state, scenes)
                self.history_ += [values for values in steps if values]
        except UserError as error:
            raise ValueError(str(error)) from None
        self.classes_ = np.arange(scenes.n_classes)
        self._net = state.kept.eval()
        return self

    def predict_proba(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | list[np.ndarray]:
        """Of each class at each pixel: (k, h, w), or a list of them."""
        return self._each(X, lambda maps: maps)

    def predict(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | list[np.ndarray]:
        """The label of each pixel: (h, w) int64, or a list of them."""
        return self._each(X, lambda maps: maps.argmax(0))

    def score(
        self,
        X: ArrayLike | Sequence[ArrayLike],
        y: ArrayLike | Sequence[ArrayLike],
        sample_weight: None = None,
    ) -> float:
        """The mean intersection over union, pooled over the pictures."""
        found = self._each(X, lambda maps: maps.argmax(0))
        found = [found] if estimator.is_one(X) else found
        return metrics.mean_iou(_labels(X, y), found, len(self.classes_), data.IGNORE)["miou"]

    def _each(
        self, X: ArrayLike | Sequence[ArrayLike], what: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray | list[np.ndarray]:
        check_is_fitted(self, "history_")
        cfg = self._config()
        pictures = estimator.as_pictures(X)
        found = [what(windows.probabilities(self._net, each, cfg)) for each in pictures]
        return found[0] if estimator.is_one(X) else found

    def _config(self) -> config.Config:
        for name, known in (("decoder", ("mask", "linear")), ("optimizer", ("sgd", "adamw"))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: expected {' or '.join(known)}"
                )
        return config.Config(
            dataset=config.Dataset(crop=tuple(self.crop), short_side=self.short_side),
            model=config.Model(
                backbone=self.backbone,
                pretrained=self.pretrained,
                patch_size=self.patch_size,
                width=self.width,
                depth=self.depth,
                n_heads=self.n_heads,
                decoder=self.decoder,
                cells=self.cells,
                flip=self.flip,
            ),
            training=config.Training(
                seed=self.random_state,
                optimizer=self.optimizer,
                lr=self.lr,
                warmup=0.1,
                batch_size=self.batch_size,
                n_epochs=self.n_epochs,
            ),
        )


class _Scenes:
    """What the training asks of `data.Scenes`, of arrays."""

    def __init__(self, pictures: list[np.ndarray], truths: list[np.ndarray], side: int | None):
        self.n_classes = 1 + max(
            (int(truth[truth != data.IGNORE].max(initial=0)) for truth in truths), default=0
        )
        self._pairs = [data.reduce(*pair, side) for pair in zip(pictures, truths, strict=True)]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self._pairs[i]


def _labels(X: ArrayLike | Sequence[ArrayLike], y: ArrayLike | Sequence[ArrayLike]) -> list:
    """Each as uint8 (h, w); raises ValueError unless they fit X."""
    truths = [np.asarray(each) for each in ([y] if estimator.is_one(X) else y)]
    pictures = estimator.as_pictures(X)
    if len(truths) != len(pictures):
        raise ValueError(f"y has {len(truths)} maps, X {len(pictures)} pictures")
    for i, (truth, picture) in enumerate(zip(truths, pictures, strict=True)):
        if truth.shape != picture.shape[:2]:
            raise ValueError(f"map {i} of y is {truth.shape}, its picture {picture.shape[:2]}")
        if truth.dtype.kind not in "iub" or truth.min() < 0 or truth.max() > 255:
            raise ValueError(f"map {i} of y is no map of integers from 0 to 255")
    return [truth.astype(np.uint8) for truth in truths]
