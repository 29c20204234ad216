"""The commands of the original repository: requirements.txt, training, extraction and t-SNE."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from clusterloss_tf import config, metric_learning_densenet
from common import cli
from tests.entry_scripts import one_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "metric_learning_densenet.py"


def start(checkout, monkeypatch, *given):
    """The config that train.py gets from the command."""
    monkeypatch.setattr(sys, "argv", [COMMAND, *metric_learning_densenet.arguments(list(given))])
    cfg, run = cli.start(config.Config, str(checkout.paper / "train.py"))
    shutil.rmtree(run.path.parent)  # or it would be the newest run
    return cfg


def test_requirements_are_those_of_the_project():
    lines = (ROOT / "clusterloss_tf/requirements.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    expected = {*project["dependencies"], *extras["tf"], *extras["tf-cpu"]} - {
        "clustering-papers[tf]"
    }
    assert {line for line in lines if re.match(r"\w", line)} == expected
    constraints = [line.removeprefix("-c ") for line in lines if line.startswith("-c ")]
    assert [(ROOT / "clusterloss_tf" / path).is_file() for path in constraints] == [True]


@pytest.mark.parametrize("name", ["cifar100", "cifar10", "imagenet32"])
def test_command_without_options_trains_densenet_40(checkout, monkeypatch, name):
    if name != "cifar100":  # the default
        monkeypatch.setattr(metric_learning_densenet, "CONFIG", f"{name}.yml")
    cfg = start(checkout, monkeypatch)
    assert (cfg.dataset.name, cfg.dataset.split, cfg.dataset.test_split) == (name, "train", "test")
    assert (cfg.model.depth, cfg.model.growth, cfg.model.dim) == (40, 12, 64)
    training = cfg.training
    assert (training.optimizer, training.batch_size, training.n_epochs) == ("sgd", 128, 100)
    assert (training.lr, training.milestones, training.weight_decay) == (0.1, (0.5, 0.75), 1e-4)


def test_edited_settings_and_options_reach_the_training(checkout, monkeypatch):
    monkeypatch.setitem(metric_learning_densenet.TRAIN_PARAMS, "batch_size", 64)
    monkeypatch.setitem(metric_learning_densenet.DENSENET_PARAMS, "bottleneck", True)
    cfg = start(checkout, monkeypatch, "--model.depth", "22", "--training.lr=0.2")
    assert (cfg.training.batch_size, cfg.training.lr) == (64, 0.2)
    assert (cfg.model.bottleneck, cfg.model.depth) == (True, 22)


def test_missing_data_without_network_is_one_line(checkout, tmp_path):
    (checkout.path / "data").mkdir(exist_ok=True)
    shutil.copy(ROOT / "data/sources.yml", checkout.path / "data")
    closed = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    result = checkout(COMMAND, cwd="clusterloss_tf", DATA_ROOT=str(tmp_path), **closed)
    assert "cifar100" in one_line(result)


def test_commands_train_extract_and_draw(checkout):
    options = ["--config", "tiny.yml", "--training.n_epochs", 1, "--tag", "original"]
    trained = checkout(COMMAND, *options, cwd="clusterloss_tf")
    assert trained.code == 0, trained.err
    run = trained.run
    assert trained.out == f"{run}\n" and run.name.endswith("_original")
    features, labels = (np.load(run / f"features_test/{n}.npy") for n in ("features", "labels"))
    assert features.shape == (25, 8) and np.bincount(labels).tolist() == [5] * 5
    drawn = checkout("visualization/tsne.py", cwd="clusterloss_tf")  # of the newest run
    assert (drawn.code, drawn.out) == (0, ""), drawn.err
    assert f"run folder {run}, the newest" in drawn.err and (run / "images/tsne.png").exists()
    assert (run / "images/tsne_mosaic.png").exists()

    # edited to extract only, as the document says: the same features again
    shutil.rmtree(run / "features_test")
    path = checkout.paper / COMMAND
    text = path.read_text()
    try:
        path.write_text(text.replace("\nTRAINING = True", "\nTRAINING = False"))
        extracted = checkout(COMMAND, cwd="clusterloss_tf")
    finally:
        path.write_text(text)
    assert (extracted.code, extracted.out) == (0, ""), extracted.err
    np.testing.assert_array_equal(np.load(run / "features_test/features.npy"), features)
