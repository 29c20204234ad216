"""Checkouts whose scripts train a tiny config of one model, and can be killed at a step."""

from contextlib import contextmanager

from tests.entry_scripts import Checkout

WNET_MODULES = "skimage.color, skimage.restoration, skimage.segmentation, sklearn.base"
WITHOUT_TIMM = "scipy.ndimage, sklearn.cluster, sklearn.datasets"
TRANSFORMER_MODULES = f"{WITHOUT_TIMM}, timm"

# kill_at 6:SIGTERM sends that signal to the script after its sixth step, save:SIGKILL when it
# first writes weights.
PRELUDE = """
import os, signal
import jsonargparse, matplotlib.figure, PIL.Image, safetensors.torch, scipy.sparse.csgraph
import tensorboardX, torch, tqdm.contrib.logging, yaml
import {modules}
from torch.optim.optimizer import register_optimizer_step_post_hook

torch.optim.Adam([torch.zeros(1)])  # imports hundreds of modules

def kill_at(place, name):
    def hit(*_):
        hit.n += 1
        if place == "save" or hit.n == {updates_per_step} * int(place):
            os.kill(os.getpid(), getattr(signal, name))
    hit.n = 0
    if place == "save":
        safetensors.torch.save_file = hit
    else:
        register_optimizer_step_post_hook(hit)
"""


@contextmanager
def checkout(folder, config, modules, updates_per_step=1):
    """A Checkout of the paper; modules: what its server imports before the scripts start."""
    prelude = PRELUDE.format(modules=modules, updates_per_step=updates_per_step)
    opened = Checkout(folder, "unsup_seg_torch", config, prelude)
    try:
        yield opened
    finally:
        opened.close()


def finish(checkout):
    """The answer of train.py, and the finished run, predicted and scored."""
    answer = checkout.train()
    assert answer.code == 0, answer.err
    checkout.score(answer.run)
    return answer, answer.run
