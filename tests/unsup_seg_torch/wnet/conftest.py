"""A tiny W-Net on two photographs, and the same photographs with human segmentations."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_sample_images

from tests.unsup_seg_torch import runs

# Twelve steps: three epochs of four batches.
TINY = """
dataset: {{name: folder, path: "{}", max_side: 40, crop: 24}}
model: {{n_clusters: 4, width: 4, depth: 2, dropout: 0.2, crf_iterations: 2}}
training: {{n_epochs: 3, batch_size: 3, crops: 6, lr: 0.01}}
"""


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of two small photographs of different sizes."""
    folder = tmp_path_factory.mktemp("two photos")
    for name, image, size in zip(
        ("temple", "flower"), load_sample_images().images, ((60, 40), (45, 50)), strict=True
    ):
        Image.fromarray(image).resize(size).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def annotated(tmp_path_factory, photos):
    """A data root: BSDS500 val of the photographs, cut in half by two annotators."""
    root = tmp_path_factory.mktemp("annotated")
    for kind in ("images", "groundTruth"):
        (root / f"BSDS500/data/{kind}/val").mkdir(parents=True)
    for path in photos.iterdir():
        with Image.open(path) as image:
            halves = np.ones((image.height, image.width), np.uint16)
            image.save(root / "BSDS500/data/images/val" / path.name)
        halves[:, halves.shape[1] // 2 :] = 2
        cells = np.empty((1, 2), object)
        cells[0, :] = [{"Segmentation": halves}] * 2
        truth = root / f"BSDS500/data/groundTruth/val/{path.stem}.mat"
        savemat(truth, {"groundTruth": cells})
    return root


@pytest.fixture(scope="session")
def checkout(tmp_path_factory, photos):
    folder = tmp_path_factory.mktemp("wnet")
    # a step of the alternating training is two updates
    with runs.checkout(folder, TINY.format(photos), runs.WNET_MODULES, 2) as checkout:
        yield checkout
