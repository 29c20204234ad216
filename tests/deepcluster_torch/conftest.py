"""The tiny config of this suite, and what its scripts load before they start."""

import os

import numpy as np
import pytest
from PIL import Image

from tests.entry_scripts import Checkout

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what is bit for bit the same is so on the CPU

# Nine steps: three epochs of three batches.
TINY = """
dataset: {name: digits, n_images: 120}
model: {mode: v2, width: 4, n_blocks: 1, n_clusters: 4, heads: [8, 6], projection: 16, embedding: 8}
training: {n_epochs: 3, batch_size: 40, schedule: cosine, flip: false, kmeans_iterations: 5}
"""

# A kill_at of 3:SIGTERM sends that signal to the script after its third step, when it asks whether
# to stop; save:SIGKILL when it first writes weights.
PRELUDE = """
import os, signal
import jsonargparse, matplotlib.figure, PIL.Image, safetensors.torch, scipy.optimize
import scipy.cluster.hierarchy, sklearn.cluster, sklearn.datasets, sklearn.manifold
import sklearn.metrics, tensorboardX, torch, torchvision, tqdm.contrib.logging, yaml

torch.optim.SGD([torch.zeros(1)])  # loads hundreds of modules

def kill_at(place, name):
    def hit(*_):
        os.kill(os.getpid(), getattr(signal, name))
    if place == "save":
        safetensors.torch.save_file = hit
        return
    from common.run import Run
    steps = []
    def ask(run):
        steps.append(1)
        if len(steps) == int(place):
            hit()
        return run.is_asked
    Run.stopping = property(ask, lambda run, value: setattr(run, "is_asked", value))
"""


def write_photos(folder, n=8, side=12, classes=("blue", "green", "red")):
    """n noisy pictures of each colour, in a sub-folder of its own."""
    for k, name in enumerate(classes):
        random = np.random.default_rng(k)
        colour = np.roll([200, 60, 60], k)[::-1]
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.clip(colour + random.normal(0, 30, (side, side, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "my photos")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    path = tmp_path_factory.mktemp("deepcluster")
    os.environ["DATA_ROOT"] = str(path / "data")  # the caches of the tests go with them
    checkout = Checkout(path, "deepcluster_torch", TINY, PRELUDE)
    yield checkout
    checkout.close()
    del os.environ["DATA_ROOT"]
