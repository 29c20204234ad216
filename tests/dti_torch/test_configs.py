"""The paper's experiments keep the authors' values when our defaults change."""

from pathlib import Path

import pytest

from common import datasets
from common.config import Schema
from dti_torch.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / "dti_torch" / "configs"

COLUMNS = [
    *("dataset.name", "model.n_prototypes", "model.encoder", "model.transformations"),
    *("model.curriculum", "training.batch_size", "training.lr", "training.milestones"),
    *("training.n_epochs", "training.seed", "training.check_interval"),
]
TABLE = """
mnist         mnist         10 resnet20 affine,morpho,tps 5,15,20     128 1e-3   35   40 2991  50
mnist_test    mnist         10 resnet20 affine,morpho,tps 50,150,200  128 1e-3  280  300 4760  50
mnist_1k      mnist         10 resnet20 affine,morpho,tps 100,500,700 100 1e-3 1200 1700 6065  40
affnist_test  affnist_test  10 resnet20 affine,morpho,tps 5,20,25     128 1e-4   37   45 5912 400
mnist_color   mnist         10 resnet20 color,affine,tps  5,15,30     128 1e-3   45   50 5788  50
fashion_mnist fashion_mnist 10 resnet20 color,affine,tps  5,15,25     128 1e-3   35   40 2895  50
usps          usps          10 resnet20 color,affine,tps  60,120,200  128 1e-3  250  270 9995  50
frgc          frgc          20 resnet20 color,affine,tps  50,200,400  128 1e-3  650  700 8903  20
svhn          svhn          10 resnet20 color,projective  2,18        128 1e-3   30   33 4873 100
instagram     instagram     40 resnet18 color,projective  5,15         64 1e-3  100  110 7832 100
megadepth     megadepth     20 resnet18 color,projective  150,400      64 1e-3  900 1100 7832 100
"""
ROWS = {row.split()[0]: row.split()[1:] for row in TABLE.strip().splitlines()}
EVERYWHERE = {
    **{"model.name": "dtikmeans", "model.init": "sample", "model.padding": "border"},
    **{"model.grid_size": 4, "model.kernel_size": 7, "model.reassign_empty": True},
    **{"model.surplus": 0, "training.cosine_from": None},
    **{"training.weight_decay": 1e-6, "training.gamma": 0.1},
}
ONLY = {
    "mnist_test": {"dataset.split": "test"},
    "mnist_1k": {"dataset.split": "test", "dataset.n_images": 1000},
    "mnist_color": {"dataset.colorize": True},
    "usps": {"model.padding": "zeros"},
    "svhn": {"dataset.split": "all+extra", "model.gaussian_weights_std": 7.0},
    "instagram": {"dataset.split": "santaphoto", "dataset.size": 128},
    "megadepth": {"dataset.split": "firenze", "dataset.size": 128},
}


def schema():
    return Schema(Config)


def values(name):
    return schema().load(CONFIGS / f"{name}.yml")


@pytest.mark.parametrize("name", ROWS)
def test_config_has_the_values_of_the_paper(name):
    row = dict(zip(COLUMNS, ROWS[name], strict=True))
    typed = {
        "model.transformations": ("identity", *row.pop("model.transformations").split(",")),
        "model.curriculum": tuple(map(float, row.pop("model.curriculum").split(","))),
        "training.milestones": (int(row.pop("training.milestones")),),
        "training.lr": float(row.pop("training.lr")),
    }
    typed |= {key: int(value) if value.isdecimal() else value for key, value in row.items()}
    expected = schema().build(EVERYWHERE | typed | ONLY.get(name, {}))
    assert schema().build(values(name)) == expected


@pytest.mark.parametrize("name", ROWS)
def test_config_names_a_known_dataset(name):
    assert values(name)["dataset.name"] in datasets.NAMES
