"""The tiny config of this suite and the prelude of its script server."""

import os

import numpy as np
import pytest
from PIL import Image

from tests.entry_scripts import Checkout

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # results are bit-identical on the CPU only
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # as common.tf
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

CLASSES = ("blue", "gray", "green", "orange", "red")

# Six steps: three epochs of two batches, each of four classes x three images.
TINY = """
dataset: {{name: folder, path: {path}, held_out: 0.4}}
model: {{depth: 7, growth: 4, dim: 8}}
training: {{n_epochs: 3, batch_size: 12, images_per_class: 3}}
"""

# kill_at "3:SIGTERM" sends that signal after the third step, when the script asks whether to stop;
# "save:SIGKILL" when it first writes weights.
PRELUDE = """
import os, signal
import h5py, jsonargparse, matplotlib.figure, PIL.Image, scipy.optimize, sklearn.cluster
import sklearn.datasets, sklearn.manifold, sklearn.metrics, tensorboardX, tensorflow
import tqdm.contrib.logging, yaml

def kill_at(place, name):
    def hit():
        os.kill(os.getpid(), getattr(signal, name))
    if place == "save":
        init = h5py.File.__init__
        def open_and_hit(self, path, mode="r", **keywords):
            init(self, path, mode, **keywords)
            if mode == "w":
                hit()
        h5py.File.__init__ = open_and_hit
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


def write_photos(folder, n=12, classes=CLASSES):
    """n noisy images of 8x8 pixels per class, each class in its own sub-folder."""
    for k, name in enumerate(classes):
        random = np.random.default_rng(k)
        color = random.uniform(60, 200, 3)
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.clip(color + random.normal(0, 40, (8, 8, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "all")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory, photos):
    path = tmp_path_factory.mktemp("clusterloss")
    checkout = Checkout(path, "clusterloss_tf", TINY.format(path=photos), PRELUDE)
    yield checkout
    checkout.close()
