"""A tiny Segmenter on synthetic labeled images."""

import pytest

from tests.unsup_seg_torch import runs, synthetic

# Twelve steps: three epochs of four batches.
TINY = """
dataset: {{name: folder, path: "{}", split: train, test_split: val, crop: [24, 32]}}
model: {{name: segmenter, patch_size: 8, width: 32, depth: 2, n_heads: 2, drop_path: 0.2}}
training: {{n_epochs: 3, batch_size: 2, optimizer: adamw, average: 0.9, warmup: 0.1, balance: 0.5}}
"""


@pytest.fixture(scope="session")
def labeled_images(tmp_path_factory):
    return synthetic.write_labeled_images(tmp_path_factory.mktemp("labeled images"))


@pytest.fixture(scope="session")
def checkout(tmp_path_factory, labeled_images):
    folder = tmp_path_factory.mktemp("segmenter")
    with runs.checkout(folder, TINY.format(labeled_images), runs.TRANSFORMER_MODULES) as checkout:
        yield checkout


@pytest.fixture(scope="session")
def checkout_without_timm(tmp_path_factory, labeled_images):
    """Its scripts import timm, whose hub client reads the environment when it is imported."""
    folder = tmp_path_factory.mktemp("segmenter without timm")
    with runs.checkout(folder, TINY.format(labeled_images), runs.WITHOUT_TIMM) as checkout:
        yield checkout


@pytest.fixture(scope="session")
def finished_run(checkout):
    return runs.finish(checkout)


@pytest.fixture(scope="session")
def stopped_run(checkout):
    return checkout.train(kill_at="3:SIGTERM").run
