"""DeepCluster as a scikit-learn estimator, on folders of images and on arrays."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from common import UserError, datasets, duplicates, images
from common.config import make_config
from common.estimators import check_images, warn
from common.pytorch.device import select_device
from deepcluster_torch import config, train
from deepcluster_torch.cluster import final
from deepcluster_torch.data import folder_cache, loading
from deepcluster_torch.model import features
from deepcluster_torch.modes.state import State, choose_mode, initial_state

MIN_EPOCHS, MIN_STEPS = 20, 1500  # if n_epochs is not given
# good for small datasets, as in folder.yml and digits.yml
DEFAULTS: dict[str, object] = {
    "model.width": 16,
    "model.n_blocks": 1,
    "model.pca_dim": 32,
    "training.lr": 0.03,
    "training.schedule": "cosine",
    "training.warmup": 0.1,
    "training.crop_scale": (0.3, 1.0),
    "training.jitter": 0.3,
    "training.gray": 0.1,
    "training.n_init": 5,
}


class DeepCluster(ClusterMixin, TransformerMixin, BaseEstimator):
    """Learns features of images without labels, and clusters them.

    X is a folder of images, or an array (n, h, w) or (n, h, w, c) with 1 or 3 channels, uint8 or
    floats in [0, 1]; anything else raises ValueError.

    n_clusters, n_groups, mode, arch, weights: as in config.Model. size: side in pixels of the
    square that images of a folder are resized and cropped to; None: as they are. n_epochs: None
    for 1,500 steps, 20 epochs at least. options: values for other keys of the config, as in
    {"training.crop_scale": (0.2, 1.0)}.

    After `fit`: labels_ (n,), cluster_centers_ (k, p) of the clusters before merging into n_groups,
    paths_ of the images of a folder, mode_, and n_iter_, the number of steps.
    """

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        n_groups: int | None = None,
        mode: str = "auto",
        arch: str = "resnet",
        weights: str | None = None,
        size: int | None = 64,
        n_epochs: int | None = None,
        batch_size: int = 128,
        options: Mapping[str, object] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.n_clusters = n_clusters
        self.n_groups = n_groups
        self.mode = mode
        self.arch = arch
        self.weights = weights
        self.size = size
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.options = options
        self.random_state = random_state

    def fit(self, X: str | os.PathLike | ArrayLike, y: object = None) -> "DeepCluster":
        """Trains on the images X and clusters their features."""
        dataset = self._load(X)
        seed = int(check_random_state(self.random_state).randint(2**31))
        message = duplicates.few_distinct(dataset.images, self.n_clusters)
        warn(message)
        try:
            cfg = self._config(seed, len(dataset.paths))
            with torch.random.fork_rng(range(torch.cuda.device_count())):
                state, values = _train(cfg, dataset.images, is_degenerate=bool(message))
                clustering = final.fit(values, cfg)
        except UserError as error:
            raise ValueError(str(error)) from None
        self.labels_ = clustering.assign(values).clusters
        self.cluster_centers_ = clustering.centroids.cpu().numpy()
        self.paths_ = dataset.paths
        self.mode_, self.n_iter_ = state.mode, state.step
        self._shape = list(dataset.images.shape[1:])
        self._cfg, self._net, self._clustering = cfg, state.net, clustering
        return self

    def predict(self, X: str | os.PathLike | ArrayLike) -> np.ndarray:
        """The cluster of each image (n,)."""
        return self._assign(X).clusters

    def transform(self, X: str | os.PathLike | ArrayLike) -> np.ndarray:
        """The embedding of each image (n, p), of length 1: what is clustered."""
        return self._assign(X).embeddings

    def _assign(self, X: str | os.PathLike | ArrayLike) -> final.Assignments:
        check_is_fitted(self)
        dataset = self._load(X, self._shape)
        if list(dataset.images.shape[1:]) != self._shape:
            raise ValueError(
                f"X has images {dataset.images.shape[1:]}: expected {tuple(self._shape)}, as in fit"
            )
        return self._clustering.assign(features.extract(self._net, dataset.images, self._cfg))

    def _load(
        self, X: str | os.PathLike | ArrayLike, shape: list[int] | None = None
    ) -> datasets.Images:
        """The images of X; those of a folder in `shape` (h, w, c) if given. Raises ValueError."""
        if not isinstance(X, str | os.PathLike):
            pixels = np.ascontiguousarray(images.to_uint8(check_images(X, (1, 3))))
            return datasets.Images(pixels, None, list(map(str, range(len(pixels)))), None, [], "")
        try:
            if shape is not None:
                return loading.load_new(Path(X), shape, config.Dataset().max_bad)
            return folder_cache.load("folder", path=X, size=self.size)
        except UserError as error:
            raise ValueError(str(error)) from None

    def _config(self, seed: int, n: int) -> config.Config:
        n_epochs = self.n_epochs
        if n_epochs is None:
            n_epochs = max(MIN_EPOCHS, -(-MIN_STEPS // -(-n // self.batch_size)))
        own = {
            "model.n_clusters": self.n_clusters,
            "model.n_groups": self.n_groups,
            "model.mode": self.mode,
            "model.arch": self.arch,
            "model.weights": self.weights,
            "training.seed": seed,
            "training.batch_size": self.batch_size,
            "training.n_epochs": n_epochs,
        }
        return make_config(config.Config, DEFAULTS | own | dict(self.options or {}))


def _train(
    cfg: config.Config, images: np.ndarray, is_degenerate: bool
) -> tuple[State, torch.Tensor]:
    """The state after the training, and the features (n, f) of all images.

    is_degenerate: fewer distinct images than clusters, so the collapse warning is left out.
    """
    n, *shape = images.shape
    mode, _ = choose_mode(cfg.model, n)
    state = initial_state(cfg, mode, n, tuple(shape), select_device())
    state.warned_of_collapse = is_degenerate
    if mode != "frozen":
        for _ in range(cfg.training.n_epochs):
            for _ in train.train_epoch(cfg, state, images):
                pass
    state.net.eval()
    return state, features.extract(state.net, images, cfg)
