"""Segmenter as a scikit-learn estimator."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from common import UserError, images, metrics
from common.estimators import check_integers
from common.pytorch.device import select_device
from unsup_seg_torch.segmenter import config, data, sliding_window, train


class PixelClassifier(ClassifierMixin, BaseEstimator):
    """Learns pixel classes from labeled images (Strudel et al. 2021).

    X is one image (h, w, 3) or a list of them, uint8 or floats in [0, 1], of any sizes; y one label
    map (h, w) of integers from 0, or one for each image; 255 is ignored. For the parameters see
    `segmenter/config.py`; with n_epochs 0 the weights are kept. Invalid values raise ValueError.

    Attributes after `fit`: classes_; history_, losses by step.
    """

    def __init__(
        self,
        *,
        backbone: str | None = None,
        pretrained: bool = False,
        weights: str | None = None,
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
        self.weights = weights
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
        """Trains on the images X and their label maps y."""
        truths, cfg = _label_maps(X, y), self._config()
        dataset = _Arrays(images.as_image_list(X), truths, cfg.dataset.short_side)
        remedy = "expected two or more classes, numbered from 0 (foreground 255 as 1)"
        try:
            if cfg.training.n_epochs:
                data.check_classes(truths, "y has", remedy)
            state = train.initial_state(cfg, dataset.n_classes, select_device())
            train.load_start_weights(cfg, state)
            self.history_ = []
            for _ in range(cfg.training.n_epochs):
                steps = train.train_epoch(cfg, state, dataset)
                self.history_ += [values for values in steps if values]
        except UserError as error:
            raise ValueError(str(error)) from None
        self.classes_ = np.arange(dataset.n_classes)
        self._net = state.kept.eval()
        return self

    def predict_proba(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | list[np.ndarray]:
        """Class probabilities of each pixel: (k, h, w), or a list of them."""
        return self._predict(X, lambda maps: maps)

    def predict(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | list[np.ndarray]:
        """The class of each pixel: (h, w) int64, or a list of them."""
        return self._predict(X, lambda maps: maps.argmax(0))

    def score(
        self,
        X: ArrayLike | Sequence[ArrayLike],
        y: ArrayLike | Sequence[ArrayLike],
        sample_weight: None = None,
    ) -> float:
        """Mean intersection over union, pooled over the images."""
        predicted = self._predict(X, lambda maps: maps.argmax(0))
        predicted = [predicted] if images.is_single_image(X) else predicted
        truths = _label_maps(X, y)
        try:
            data.check_classes(truths, "y has", "expected labels", 1)
        except UserError as error:
            raise ValueError(str(error)) from None
        return metrics.mean_iou(truths, predicted, len(self.classes_), data.IGNORE)["miou"]

    def _predict(
        self, X: ArrayLike | Sequence[ArrayLike], select: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray | list[np.ndarray]:
        check_is_fitted(self, "history_")
        cfg = self._config()
        results = [
            select(sliding_window.probabilities(self._net, image, cfg))
            for image in images.as_image_list(X)
        ]
        return results[0] if images.is_single_image(X) else results

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
                weights=self.weights,
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


class _Arrays:
    """Arrays with the interface of `data.LabeledImages` that training uses."""

    def __init__(self, pixels: list[np.ndarray], truths: list[np.ndarray], side: int | None):
        self.n_classes = 1 + max(
            (int(truth[truth != data.IGNORE].max(initial=0)) for truth in truths), default=0
        )
        self._pairs = [data.resize_pair(*pair, side) for pair in zip(pixels, truths, strict=True)]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self._pairs[i]


def _label_maps(X: ArrayLike | Sequence[ArrayLike], y: ArrayLike | Sequence[ArrayLike]) -> list:
    """One label map uint8 (h, w) for each image; raises ValueError unless they fit X."""
    truths = [np.asarray(each) for each in ([y] if images.is_single_image(X) else y)]
    pixels = images.as_image_list(X)
    if len(truths) != len(pixels):
        raise ValueError(f"y has {len(truths)} label maps, X has {len(pixels)} images")
    for i, (truth, image) in enumerate(zip(truths, pixels, strict=True)):
        if truth.shape != image.shape[:2]:
            raise ValueError(f"label map {i} of y is {truth.shape}, its image {image.shape[:2]}")
        truth = truths[i] = check_integers(f"label map {i} of y", truth)
        if truth.min() < 0 or truth.max() > 255:
            raise ValueError(
                f"label map {i} of y has {truth.min()} to {truth.max()}: expected 0 to 255"
            )
    return [truth.astype(np.uint8) for truth in truths]
