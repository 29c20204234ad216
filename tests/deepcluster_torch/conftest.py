"""The tiny config of this suite, and what its scripts import in advance."""

import os

import numpy as np
import pytest
from PIL import Image

from tests.entry_scripts import Checkout

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # runs are bit-identical on the CPU only

# Nine steps: three epochs of three batches.
TINY = """
dataset: {name: digits, n_images: 120}
model: {mode: v2, width: 4, n_blocks: 1, n_clusters: 4, heads: [8, 6], projection: 16, embedding: 8}
training: {n_epochs: 3, batch_size: 40, schedule: cosine, flip: false, kmeans_iterations: 5}
"""

# kill_at "3:SIGTERM" sends that signal to the script after its third step, when it checks whether
# to stop; "save:SIGKILL" when it first writes weights.
PRELUDE = """
import os, signal
import jsonargparse, matplotlib.figure, PIL.Image, safetensors.torch, scipy.optimize
import scipy.cluster.hierarchy, sklearn.cluster, sklearn.datasets, sklearn.manifold
import sklearn.metrics, tensorboardX, torch, torchvision, tqdm.contrib.logging, yaml

torch.optim.SGD([torch.zeros(1)])  # imports hundreds of modules

def kill_at(place, name):
    def kill(*_):
        os.kill(os.getpid(), getattr(signal, name))
    if place == "save":
        safetensors.torch.save_file = kill
        return
    from common.run import Run
    steps = []
    def stopping(run):
        steps.append(1)
        if len(steps) == int(place):
            kill()
        return run.stop_requested
    Run.stopping = property(stopping, lambda run, value: setattr(run, "stop_requested", value))
"""


def write_photos(folder, n=8, side=12, classes=("blue", "green", "red")):
    """n noisy images of each color, one subfolder per color."""
    for k, name in enumerate(classes):
        random = np.random.default_rng(k)
        color = np.roll([200, 60, 60], k)[::-1]
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.clip(color + random.normal(0, 30, (side, side, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "my photos")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    path = tmp_path_factory.mktemp("deepcluster")
    os.environ["DATA_ROOT"] = str(path / "data")  # the caches are deleted with the other files
    checkout = Checkout(path, "deepcluster_torch", TINY, PRELUDE)
    yield checkout
    checkout.close()
    del os.environ["DATA_ROOT"]
