import logging

import numpy as np
import pytest
import torch

from common import datasets
from deepcluster_torch import config
from deepcluster_torch.modes import frozen
from deepcluster_torch.modes.state import initial_state

CFG = config.Config(model=config.Model(mode="frozen", width=4, n_blocks=1, n_clusters=3))


@pytest.fixture
def dataset():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 3), np.uint8)
    return datasets.Images(pixels, None, ["x"] * 90, None, [], "checksum")


@pytest.fixture
def state():
    with torch.random.fork_rng():
        return initial_state(CFG, "frozen", 90, (8, 8, 3), torch.device("cpu"))


def test_features_are_computed_once(dataset, state, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    first = frozen.cached_features(CFG, state, dataset)
    (path,) = tmp_path.glob("cache/features_*.npy")
    with caplog.at_level(logging.INFO):
        again = frozen.cached_features(CFG, state, dataset)
    assert torch.equal(first, again) and str(path) in caplog.text
    path.write_bytes(path.read_bytes()[:100])  # truncated
    assert torch.equal(frozen.cached_features(CFG, state, dataset), first)
    with torch.no_grad():  # other weights
        next(state.trunk.parameters()).mul_(2)
    frozen.cached_features(CFG, state, dataset)
    assert len(list(tmp_path.glob("cache/features_*.npy"))) == 2


def test_cache_that_cannot_be_written_is_one_warning(dataset, state, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "file"))
    assert frozen.cached_features(CFG, state, dataset).isfinite().all()
    assert caplog.text.count("cannot cache the features") == 1
