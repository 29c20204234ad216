"""The shipped configs and the experiments of grid.yml."""

from pathlib import Path

import pytest

from common.config import Schema, load_config, read_yaml
from dfc_tf import config, data, grid

FOLDER = Path(config.__file__).with_name("configs")
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))


def values(name):
    schema = Schema(config.Config)
    return schema.load(FOLDER / name)


def test_presets_have_the_values_of_the_paper_and_its_demo():
    paper, demo = (
        load_config(config.Config, config.__file__, f"{name}.yml") for name in ("paper", "demo")
    )
    assert (paper.model.n_blocks, paper.training.mu, paper.training.n_iterations) == (3, 5, 500)
    assert (demo.model.n_blocks, demo.training.mu, demo.training.n_iterations) == (2, 1, 1000)
    for cfg in (paper, demo):
        assert (cfg.model.width, cfg.model.n_clusters, cfg.training.max_side) == (100, 100, None)
        assert (cfg.training.lr, cfg.training.momentum, cfg.training.min_labels) == (0.1, 0.9, 3)


@pytest.mark.parametrize("name", NAMES)
def test_config_names_a_known_dataset(name):
    assert values(name).get("dataset.name", "coffee") in (*data.SAMPLES, "bsds500", "folder")


def test_grid_experiments_are_valid_configs():
    experiments = read_yaml(FOLDER.with_name("grid.yml"))
    assert len(experiments) == 16
    configs = {n: grid.experiment(config.Dataset(), c, None) for n, c in experiments.items()}
    assert len(set(configs.values())) == 16
    base = configs["sgd_mu_5"]
    assert (base.model.n_blocks, base.training.mu, base.training.n_iterations) == (3, 5, 500)
    assert configs["adam_0.07"].training.optimizer == "adam"
    assert configs["mu_10_p_150"].model.width == 150
