"""The tiny config of this suite, and the modules and hooks its scripts start with."""

import os

import pytest

from tests.entry_scripts import Checkout

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # results are bit-identical on the CPU only
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Twelve iterations in six chunks.
TINY = """
dataset: {name: coffee, max_side: 60}
model: {width: 12, n_clusters: 12}
training: {n_iterations: 12, max_side: 30, check_interval: 2, min_labels: 1}
"""

# kill_at 3:SIGTERM sends that signal to the script after its third line of metrics, save:SIGKILL
# when it starts to write weights. With LOG_DECODES each image file that is decoded is logged.
PRELUDE = """
import os, signal, sys
import h5py, jsonargparse, matplotlib, PIL.ImageFile, scipy.sparse.csgraph, skimage.segmentation
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

def log_decodes(load):
    def logged(image):
        if image.tile and "LOG_DECODES" in os.environ:  # what is left to decode
            print("decoded", image.filename or image.fp.name, file=sys.stderr)
        return load(image)
    return logged

PIL.ImageFile.ImageFile.load = log_decodes(PIL.ImageFile.ImageFile.load)
"""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("dfc"), "dfc_tf", TINY, PRELUDE)
    yield checkout
    checkout.close()
