"""The tiny config of this suite, and what its scripts load before they start."""

import os

import pytest

from tests.entry_scripts import Checkout

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what is bit for bit the same is so on the CPU
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Twelve iterations in six chunks.
TINY = """
dataset: {name: coffee, max_side: 60}
model: {width: 12, n_clusters: 12}
training: {n_iterations: 12, max_side: 30, check_interval: 2, min_labels: 1}
"""

# A kill_at of 3:SIGTERM sends that signal to the script after its third look at the losses,
# save:SIGKILL when it first writes weights.
PRELUDE = """
import os, signal
import h5py, jsonargparse, matplotlib, PIL.Image, scipy.sparse.csgraph, skimage.segmentation
import sklearn.base, tensorboardX, tensorflow, tifffile, tqdm.contrib.logging, yaml

def kill_at(place, name):
    def wrap(function, is_hit):
        def hit(*args, **keywords):
            value = function(*args, **keywords)
            hit.n += 1
            if is_hit(args, hit.n):
                os.kill(os.getpid(), getattr(signal, name))
            return value
        hit.n = 0
        return hit
    if place == "save":
        h5py.File.__init__ = wrap(h5py.File.__init__, lambda args, n: "w" in args[2:])
    else:
        import common.run
        common.run.Run.log = wrap(common.run.Run.log, lambda args, n: n == int(place))
"""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("dfc"), "dfc_tf", TINY, PRELUDE)
    yield checkout
    checkout.close()
