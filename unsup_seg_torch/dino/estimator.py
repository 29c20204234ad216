"""DINO as a scikit-learn estimator."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from common import UserError, images
from common.pytorch.device import select_device
from unsup_seg_torch.dino import config, data, model, train
from unsup_seg_torch.vit import visualize


class DINOFeatures(TransformerMixin, BaseEstimator):
    """Learns features of images without labels, and segments their objects (Caron et al. 2021).

    X is a folder of images, or an image (h, w, 3) or a list of them, uint8 or floats in [0, 1].
    With n_epochs 0 the initial weights are kept. For the parameters see `dino/config.py`; training
    images are resized to `size` pixels. Invalid values raise ValueError.

    Attributes after `fit`: history_, losses, entropies and information by step.
    """

    def __init__(
        self,
        *,
        backbone: str | None = None,
        pretrained: bool = False,
        weights: str | None = None,
        patch_size: int = 4,
        width: int = 128,
        depth: int = 6,
        n_heads: int | None = None,
        stem: bool = False,
        hidden: int = 512,
        bottleneck: int = 128,
        n_outputs: int = 1024,
        norm_last_layer: bool = True,
        size: int = 32,
        large: int = 32,
        small: int = 16,
        n_small: int = 4,
        lr: float = 4e-3,
        koleo: float = 0.1,
        momentum: float = 0.99,
        batch_size: int = 64,
        n_epochs: int = 30,
        n_segments: int = 2,
        random_state: int = 0,
    ):
        self.backbone = backbone
        self.pretrained = pretrained
        self.weights = weights
        self.patch_size = patch_size
        self.width = width
        self.depth = depth
        self.n_heads = n_heads
        self.stem = stem
        self.hidden = hidden
        self.bottleneck = bottleneck
        self.n_outputs = n_outputs
        self.norm_last_layer = norm_last_layer
        self.size = size
        self.large = large
        self.small = small
        self.n_small = n_small
        self.lr = lr
        self.koleo = koleo
        self.momentum = momentum
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.n_segments = n_segments
        self.random_state = random_state

    def fit(
        self, X: str | os.PathLike | ArrayLike | Sequence[ArrayLike], y: object = None
    ) -> "DINOFeatures":
        """Trains on the images X."""
        cfg = self._config()
        try:
            if isinstance(X, str | os.PathLike):
                folder = config.Dataset(name="folder", path=os.fspath(X), size=self.size)
                pixels = data.load(folder).images
            else:
                pixels = np.stack(
                    [images.resize(image, self.size) for image in images.as_image_list(X)]
                )
            if len(pixels) < 2 and self.n_epochs:
                raise ValueError(f"X has {len(pixels)} image: DINO needs at least two")
            state = train.initial_state(cfg, select_device())
            model.load_start_weights(cfg.model, state.net)
            self.history_ = []
            for _ in range(cfg.training.n_epochs):
                steps = train.train_epoch(cfg, state, pixels)
                self.history_ += [values for values in steps if values]
        except UserError as error:
            raise ValueError(str(error)) from None
        self._encoder = state.net.eval().teacher.encoder
        return self

    def transform(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray:
        """The class token's features of each image at full size: (n, d)."""
        check_is_fitted(self, "history_")
        return np.stack(
            [visualize.class_token(self._encoder, image) for image in images.as_image_list(X)]
        )

    def attention(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | list[np.ndarray]:
        """Attention maps of the class token, per head: (heads, h, w), or a list of them."""
        check_is_fitted(self, "history_")
        maps = [
            visualize.attend(self._encoder, image, None)[1] for image in images.as_image_list(X)
        ]
        return maps[0] if images.is_single_image(X) else maps

    def predict(self, X: ArrayLike | Sequence[ArrayLike]) -> np.ndarray | list[np.ndarray]:
        """n_segments segments of each image by a normalized cut: (h, w) int64, or a list of them.

        With two segments 1 is the object and 0 the background.
        """
        check_is_fitted(self, "history_")
        label_maps = []
        for image in images.as_image_list(X):
            mask, _, scales = visualize.cut(self._encoder, image, self.n_segments)
            labels = mask if self.n_segments == 2 else scales[-1]
            label_maps.append(labels.astype(np.int64))
        return label_maps[0] if images.is_single_image(X) else label_maps

    def _config(self) -> config.Config:
        if self.n_segments < 2:
            raise ValueError(f"n_segments is {self.n_segments}: expected 2 or more")
        return config.Config(
            dataset=config.Dataset(size=self.size),
            model=config.Model(
                backbone=self.backbone,
                pretrained=self.pretrained,
                weights=self.weights,
                patch_size=self.patch_size,
                width=self.width,
                depth=self.depth,
                n_heads=self.n_heads,
                stem=self.stem,
                hidden=self.hidden,
                bottleneck=self.bottleneck,
                n_outputs=self.n_outputs,
                norm_last_layer=self.norm_last_layer,
                drop_path=0.0,
            ),
            training=config.Training(
                seed=self.random_state,
                lr=self.lr,
                koleo=self.koleo,
                momentum=self.momentum,
                batch_size=self.batch_size,
                n_epochs=self.n_epochs,
                large=self.large,
                small=self.small,
                n_small=self.n_small,
                blur=min(self.large / 224, 1.0),  # two pixels of the paper's crops
            ),
        )
