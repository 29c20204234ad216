"""The shipped configs: the paper's has the paper's values, and all name pictures there are."""

from pathlib import Path

import pytest

from common import cli
from unsup_seg_torch import config, data

FOLDER = Path(config.__file__).with_name("configs")
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))


def load(name):
    return cli.load_config(config.Config, config.__file__, name)


def test_the_papers_preset_is_the_papers():
    cfg = load("paper.yml")
    model, training = cfg.model, cfg.training
    assert (model.width, model.depth, model.dropout, cfg.dataset.crop) == (64, 4, 0.65, 224)
    assert (model.radius, model.sigma_intensity, model.sigma_position) == (5, 10 / 255, 4)
    assert (training.mode, training.optimizer, training.lr) == ("alternating", "sgd", 0.003)
    assert (training.batch_size, training.drop_every, training.cosine) == (10, 1000, False)
    n_pictures = 200  # of BSDS500 train
    steps = data.n_batches(cfg, n_pictures) * training.n_epochs
    assert steps == 50_000


@pytest.mark.parametrize("name", NAMES)
def test_a_config_names_pictures_that_there_are(name):
    assert load(name).dataset.name in ("photographs", "folder", *data.LABELLED)


def test_a_single_picture_is_seen_whole():
    cfg = load("single.yml")
    assert cfg.dataset.crop is None and cfg.training.batch_size == cfg.training.crops == 1


def test_two_cores_train_on_all_of_train_and_never_on_what_is_scored():
    cfg = load("cpu.yml")
    dataset = cfg.dataset
    assert (dataset.name, dataset.split, dataset.test_split) == ("bsds500", "train", "val")
    assert dataset.n_images is None
    assert data.n_batches(cfg, 200) * cfg.training.n_epochs == 1400  # as its header says
