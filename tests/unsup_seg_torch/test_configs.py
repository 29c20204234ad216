"""The shipped configs have the papers' values and known datasets; short options become keys."""

from pathlib import Path

import pytest

from common import datasets
from common.config import load_config
from common.datasets import segmentations
from unsup_seg_torch import config
from unsup_seg_torch.wnet import data

FOLDER = Path(config.__file__).with_name("configs")
NAMES = sorted(path.name for path in FOLDER.glob("*.yml"))


def load(name):
    return load_config(config.CONFIGS, config.__file__, name)


def test_paper_config_has_the_papers_values():
    cfg = load("paper.yml")
    model, training = cfg.model, cfg.training
    assert (model.width, model.depth, model.dropout, cfg.dataset.crop) == (64, 4, 0.65, 224)
    assert (model.radius, model.sigma_intensity, model.sigma_position) == (5, 10 / 255, 4)
    assert (training.mode, training.optimizer, training.lr) == ("alternating", "sgd", 0.003)
    assert (training.batch_size, training.drop_every, training.cosine) == (10, 1000, False)
    n_images = 200  # of BSDS500 train
    steps = data.n_batches(cfg, n_images) * training.n_epochs
    assert steps == 50_000


@pytest.mark.parametrize("name", NAMES)
def test_config_names_a_known_dataset(name):
    known = {
        "wnet": ("photographs", "folder", *data.LABELED),
        "segmenter": ("digits", "folder", *segmentations.NAMES),
        "dino": datasets.NAMES,
    }
    cfg = load(name)
    assert cfg.dataset.name in known[cfg.model.name]


def test_every_model_has_a_default_and_a_folder_config():
    assert set(config.CONFIGS) == set(config.DEFAULTS)
    for model, name in config.DEFAULTS.items():
        assert load(name).model.name == model
        folder = load("folder.yml" if model == "wnet" else f"{model}_folder.yml")
        assert (folder.model.name, folder.dataset.name) == (model, "folder")


def test_ade20k_segmenter_config_has_the_papers_values():
    cfg = load("ade20k_segmenter.yml")
    model, training = cfg.model, cfg.training
    assert (cfg.dataset.short_side, cfg.dataset.crop, model.stride) == (512, (512, 512), 512)
    assert (model.decoder, model.decoder_depth, model.dropout, model.cells) == ("mask", 2, 0.1, 1)
    assert (training.optimizer, training.lr, training.batch_size) == ("sgd", 1e-3, 8)
    assert (training.n_epochs, training.weight_decay, training.momentum) == (64, 0, 0.9)


def test_single_image_config_uses_the_whole_image():
    cfg = load("single.yml")
    assert cfg.dataset.crop is None and cfg.training.batch_size == cfg.training.crops == 1


def test_cpu_config_trains_on_train_and_scores_val():
    cfg = load("cpu.yml")
    dataset = cfg.dataset
    assert (dataset.name, dataset.split, dataset.test_split) == ("bsds500", "train", "val")
    assert dataset.n_images is None
    assert data.n_batches(cfg, 200) * cfg.training.n_epochs == 1400  # as its header says


def test_short_options_become_keys():
    words = "-m wnet --batch-size=16 -e 3 -lr=0.1 --pretrained --save-logs --config cpu.yml"
    assert config.expand_short_options(words.split()) == [
        *("--model.name", "wnet", "--training.batch_size=16", "--training.n_epochs", "3"),
        *("--training.lr=0.1", "--model.pretrained=true", "--training.save_logs=true"),
        *("--config", "cpu.yml"),
    ]
