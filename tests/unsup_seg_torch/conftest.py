"""The tiny config of this suite, and what its scripts load before they start."""

import os

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_sample_images

from tests.entry_scripts import Checkout

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what is bit for bit the same is so on the CPU

# Twelve steps: three epochs of four batches.
TINY = """
dataset: {{name: folder, path: "{}", max_side: 40, crop: 24}}
model: {{n_clusters: 4, width: 4, depth: 2, dropout: 0.2, crf_iterations: 2}}
training: {{n_epochs: 3, batch_size: 3, crops: 6, lr: 0.01}}
"""

# A kill_at of 6:SIGTERM sends that signal to the script after its sixth step, each of which is two
# updates; save:SIGKILL when it first writes weights.
PRELUDE = """
import os, signal
import jsonargparse, matplotlib.pyplot, PIL.Image, safetensors.torch, scipy.sparse.csgraph
import skimage.color, skimage.restoration, skimage.segmentation, sklearn.base, tensorboardX, torch
import tqdm.contrib.logging, yaml
from torch.optim.optimizer import register_optimizer_step_post_hook

torch.optim.Adam([torch.zeros(1)])  # loads hundreds of modules

def kill_at(place, name):
    def hit(*_):
        hit.n += 1
        if place == "save" or hit.n == 2 * int(place):
            os.kill(os.getpid(), getattr(signal, name))
    hit.n = 0
    if place == "save":
        safetensors.torch.save_file = hit
    else:
        register_optimizer_step_post_hook(hit)
"""


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Two small photographs of different sizes."""
    folder = tmp_path_factory.mktemp("two photos")
    for name, image, size in zip(
        ("temple", "flower"), load_sample_images().images, ((60, 40), (45, 50)), strict=True
    ):
        Image.fromarray(image).resize(size).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def people(tmp_path_factory, photos):
    """A data root: BSDS500 val of the two photographs, which two people have cut in half."""
    root = tmp_path_factory.mktemp("people")
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
    folder = tmp_path_factory.mktemp("unsup_seg")
    checkout = Checkout(folder, "unsup_seg_torch", TINY.format(photos), PRELUDE)
    yield checkout
    checkout.close()
