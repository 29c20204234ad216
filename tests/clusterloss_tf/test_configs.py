"""The shipped configs: what they name is there, and they say only what differs."""

from pathlib import Path

import pytest

from clusterloss_tf import config
from common import datasets
from common.config import Schema, load_config

FOLDER = Path(config.__file__).with_name("configs")
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))


def values(name):
    schema = Schema(config.Config)
    return schema.load(FOLDER / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_names_a_data_set_that_there_is(name):
    assert values(name)["dataset.name"] in datasets.NAMES


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar100_disjoint", "imagenet32"])
def test_the_large_configs_train_the_network_of_the_seed(name):
    cfg = load_config(config.Config, config.__file__, f"{name}.yml")
    assert (cfg.model.depth, cfg.model.growth, cfg.model.dim) == (40, 12, 64)
    assert (cfg.training.batch_size, cfg.training.images_per_class) == (128, 4)
    assert (cfg.training.optimizer, cfg.training.lr) == ("sgd", 0.1)
