"""A trunk that is not trained: the features of all images, computed once and kept on disk."""

import contextlib
import hashlib
import logging
import os

import numpy as np
import torch
from torch import Tensor

from common import datasets
from common.datasets import download
from deepcluster_torch import config, devices, readout
from deepcluster_torch.state import State

log = logging.getLogger("deepcluster_torch.frozen")


def features(cfg: config.Config, now: State, found: datasets.Images) -> Tensor:
    """Features (n, f), from DATA_ROOT/cache where the same trunk has seen the same images."""
    path = download.data_root(cfg.dataset.root) / "cache" / f"features_{key(cfg, now, found)}.npy"
    try:
        kept = np.load(path, allow_pickle=False)
        if kept.shape == (len(found.paths), now.trunk.n_features):
            log.info("features: %s", path)
            return torch.from_numpy(kept).to(now.device)
    except (OSError, ValueError, EOFError):
        pass  # there are none, or they were cut
    new = readout.features(now.net, found.images, cfg)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(half, "wb") as file:
            np.save(file, new.cpu().numpy())
        half.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            half.unlink()
        log.warning("features are not kept: %s: %s", path, error.strerror)
    return new


def key(cfg: config.Config, now: State, found: datasets.Images) -> str:
    """Changes with the trunk's weights, with the images, and with how they are shown."""
    digest = hashlib.sha256(found.checksum.encode())
    shown = (cfg.dataset.n_images, cfg.dataset.held_out, cfg.model.input_size, cfg.model.centre)
    dtype = devices.precision(cfg.training.precision, now.device)
    digest.update(repr((found.images.shape, cfg.model.arch, shown, dtype)).encode())
    for name, value in sorted(now.trunk.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
