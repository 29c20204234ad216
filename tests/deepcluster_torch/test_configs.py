"""The experiments of the paper and of the original code keep their values if defaults change."""

from pathlib import Path

import pytest

from common import datasets
from common.config import load_config
from deepcluster_torch.config import Config, Model, Training

CONFIGS = Path(__file__).resolve().parents[2] / "deepcluster_torch" / "configs"


def load(name):
    return load_config(Config, str(CONFIGS.parent / "train.py"), f"{name}.yml")


def test_imagenet_has_the_values_of_the_paper():
    cfg = load("imagenet")
    assert cfg.dataset.size == 256
    assert cfg.model == Model(
        mode="v1", arch="alexnet", sobel=True, input_size=224, center_crop=0.875, n_clusters=10000,
        n_hidden=4096, clustering="kmeans", pca_dim=256, eigen_power=-0.5, n_groups=None,
    )  # fmt: skip
    assert cfg.training == Training(
        seed=31, lr=0.05, momentum=0.9, weight_decay=1e-5, batch_size=256, n_epochs=500,
        optimizer="sgd", head_optimizer="sgd", head_lr=None, head_momentum=0.0, reassign=1.0,
        schedule="constant", sampler="uniform", recluster_every=1, warm_start=False,
        kmeans_iterations=20, crop_scale=(0.08, 1.0), flip=True, jitter=0.0, gray=0.0, blur=0.0,
    )  # fmt: skip


def test_imagenette_has_the_optimizers_of_the_original_code():
    cfg = load("imagenette")
    assert (cfg.model.arch, cfg.model.mode, cfg.model.n_clusters) == ("vgg16", "v1", 10)
    assert (cfg.dataset.size, cfg.training.n_epochs) == (128, 200)
    rates = cfg.training.lr, cfg.training.head_lr, cfg.training.weight_decay
    assert rates == (1e-4, 0.05, 1e-5)
    assert (cfg.training.optimizer, cfg.training.head_optimizer) == ("adam", "sgd")
    schedule = cfg.training.schedule, cfg.training.step_size, cfg.training.gamma
    assert schedule == ("step", 30, 0.1)


def test_deepcluster_v2_has_the_values_of_its_authors():
    cfg = load("deepcluster_v2")
    assert cfg.dataset.size == 256
    assert cfg.model == Model(
        mode="v2", arch="resnet50", input_size=224, center_crop=0.875, n_clusters=1000,
        heads=(3000, 3000, 3000), projection=2048, embedding=128, temperature=0.1,
    )  # fmt: skip
    assert cfg.training == Training(
        seed=31, n_epochs=800, batch_size=256, optimizer="larc", momentum=0.9, weight_decay=1e-6,
        lr=4.8 * 256 / 4096, schedule="cosine", warmup=10 / 800, warmup_start=0.3 / 4.8,
        final_lr=0.0048 / 4.8, kmeans_iterations=10, recluster_every=1, warm_start=False,
        n_crops=2, crop_scale=(0.14, 1.0), flip=True, jitter=1.0, gray=0.2, blur=0.5,
        n_small_crops=6, small_crop_scale=(0.05, 0.14), small_size=96,
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yml")))
def test_config_names_a_known_dataset(name):
    assert load(name).dataset.name in datasets.NAMES
