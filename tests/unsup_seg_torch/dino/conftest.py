"""A tiny DINO on images of three colors."""

import pytest

from tests.unsup_seg_torch import runs, synthetic

# Eighteen steps: three epochs of six batches.
TINY = """
dataset: {{name: folder, path: "{}", size: 20}}
model: {{name: dino, patch_size: 4, width: 32, depth: 2, n_heads: 2, drop_path: 0.2, hidden: 24,
  bottleneck: 8, n_outputs: 16}}
training: {{n_epochs: 3, batch_size: 4, large: 16, small: 8, n_small: 2, lr: 6.4e-2, koleo: 0.1}}
"""


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return synthetic.write_color_classes(tmp_path_factory.mktemp("three colors"))


@pytest.fixture(scope="session")
def checkout(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("dino")
    with runs.checkout(folder, TINY.format(photos), runs.TRANSFORMER_MODULES) as checkout:
        yield checkout


@pytest.fixture(scope="session")
def checkout_without_timm(tmp_path_factory, photos):
    """Its scripts import timm, whose hub client reads the environment when it is imported."""
    folder = tmp_path_factory.mktemp("dino without timm")
    with runs.checkout(folder, TINY.format(photos), runs.WITHOUT_TIMM) as checkout:
        yield checkout


@pytest.fixture(scope="session")
def finished_run(checkout):
    return runs.finish(checkout)


@pytest.fixture(scope="session")
def stopped_run(checkout):
    return checkout.train(kill_at="3:SIGTERM").run
