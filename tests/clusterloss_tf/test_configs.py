"""The shipped configs."""

from pathlib import Path

import pytest

from clusterloss_tf import config
from common import datasets
from common.config import Schema, load_config

FOLDER = Path(config.__file__).with_name("configs")
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))


@pytest.mark.parametrize("name", NAMES)
def test_config_names_known_dataset(name):
    assert Schema(config.Config).load(FOLDER / name)["dataset.name"] in datasets.NAMES


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar100_disjoint", "imagenet32"])
def test_large_configs_use_original_network(name):
    cfg = load_config(config.Config, config.__file__, f"{name}.yml")
    assert (cfg.model.depth, cfg.model.growth, cfg.model.dim) == (40, 12, 64)
    assert (cfg.training.batch_size, cfg.training.images_per_class) == (128, 4)
    assert (cfg.training.optimizer, cfg.training.lr) == ("sgd", 0.1)
