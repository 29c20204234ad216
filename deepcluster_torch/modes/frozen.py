"""A pretrained trunk that is not trained: the features are computed once and cached on disk."""

import contextlib
import hashlib
import logging
import os

import numpy as np
import torch
from torch import Tensor

from common import datasets
from common.datasets import download
from common.pytorch.precision import compute_dtype
from deepcluster_torch import config
from deepcluster_torch.model import features
from deepcluster_torch.modes.state import State

log = logging.getLogger(__name__)


def cached_features(cfg: config.Config, state: State, dataset: datasets.Images) -> Tensor:
    """Features (n, f), from DATA_ROOT/cache if the same trunk has seen the same images before."""
    name = f"features_{cache_key(cfg, state, dataset)}.npy"
    path = download.data_root(cfg.dataset.root) / "cache" / name
    try:
        cached = np.load(path, allow_pickle=False)
        if cached.shape == (len(dataset.paths), state.trunk.n_features):
            log.info("features: %s", path)
            return torch.from_numpy(cached).to(state.device)
    except (OSError, ValueError, EOFError):
        pass  # missing or incomplete
    values = features.extract(state.net, dataset.images, cfg)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            np.save(file, values.cpu().numpy())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        log.warning("cannot cache the features in %s: %s", path, error.strerror)
    return values


def cache_key(cfg: config.Config, state: State, dataset: datasets.Images) -> str:
    """Hash of the trunk's weights, the images, and their preprocessing."""
    digest = hashlib.sha256(dataset.checksum.encode())
    subset = cfg.dataset.n_images, cfg.dataset.held_out
    view = cfg.model.input_size, cfg.model.center_crop
    dtype = compute_dtype(cfg.training.precision, state.device)
    values = dataset.images.shape, cfg.model.arch, (*subset, *view), dtype
    digest.update(repr(values).encode())
    for name, value in sorted(state.trunk.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
