"""The tiny config of this suite, and what its scripts import in advance."""

import os

import pytest

from tests.entry_scripts import Checkout

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # only the CPU is bit-identical

# Twelve steps: three epochs of four batches, each with one more transformation.
TINY = """
dataset: {name: digits, n_images: 120, margin: 1}
model:
  n_prototypes: 4
  encoder: strided
  transformations: [identity, affine, tps]
  curriculum: [1, 2]
  surplus: 0.5
  pruning: [1, 2]
training:
  {n_epochs: 3, batch_size: 32, lr: 0.01, milestones: [2], cosine_from: 1, check_interval: 3}
"""

# A kill_at of 6:SIGTERM sends that signal to the script after its sixth step, save:SIGKILL when it
# first writes weights.
PRELUDE = """
import os, signal
import jsonargparse, matplotlib, PIL.Image, safetensors.torch, scipy.optimize, sklearn.cluster
import sklearn.datasets, sklearn.metrics, tensorboardX, torch, tqdm.contrib.logging, yaml
from torch.optim.optimizer import register_optimizer_step_post_hook

torch.optim.Adam([torch.zeros(1)])  # loads hundreds of modules

def kill_at(place, name):
    def hit(*_):
        hit.n += 1
        if place in ("save", str(hit.n)):
            os.kill(os.getpid(), getattr(signal, name))
    hit.n = 0
    if place == "save":
        safetensors.torch.save_file = hit
    else:
        register_optimizer_step_post_hook(hit)
"""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("dti"), "dti_torch", TINY, PRELUDE)
    yield checkout
    checkout.close()
