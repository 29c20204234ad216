"""Tiny configs of Segmenter and DINO, and labelled pictures, for the runs of this suite."""

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from tests.entry_scripts import Checkout

SEGMENTER = """
dataset: {{name: folder, path: "{}", split: train, test_split: val, crop: [24, 32]}}
model: {{name: segmenter, patch_size: 8, width: 32, depth: 2, n_heads: 2, drop_path: 0.2}}
training: {{n_epochs: 3, batch_size: 2, optimizer: adamw, average: 0.9, warmup: 0.1, balance: 0.5}}
"""
DINO = """
dataset: {{name: folder, path: "{}", size: 20}}
model: {{name: dino, patch_size: 4, width: 32, depth: 2, n_heads: 2, drop_path: 0.2, hidden: 24,
  bottleneck: 8, n_outputs: 16}}
training: {{n_epochs: 3, batch_size: 4, large: 16, small: 8, n_small: 2, lr: 1.0e-3, koleo: 0.1}}
"""


def scene(seed, size=(30, 40)):
    """Sky over ground with a box on it, noisy, and its labels."""
    random = np.random.default_rng(seed)
    image = np.zeros((*size, 3))
    labels = np.zeros(size, np.uint8)
    horizon = random.integers(8, 20)
    image[:horizon], image[horizon:] = (120, 170, 240), (110, 90, 60)
    labels[horizon:] = 1
    x = random.integers(2, size[1] - 14)
    box = np.s_[horizon - 4 : horizon + 6, x : x + 12]
    image[box], labels[box] = (220, 40, 40), 2
    labels[:, :2] = 255
    image += random.normal(0, 10, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), labels


def write_scenes(folder, n=8, n_val=3):
    for split, numbers in (("train", range(n)), ("val", range(100, 100 + n_val))):
        (folder / split).mkdir(parents=True)
        for i in numbers:
            image, labels = scene(i, (30, 40) if i % 3 else (26, 44))
            Image.fromarray(image).save(folder / split / f"{i}.jpg", quality=95)
            Image.fromarray(labels).save(folder / split / f"{i}.png")
    (folder / "classes.txt").write_text("sky\nground\nbox\n")
    return folder


def write_photos(folder, n=8, side=20):
    """n noisy pictures of each colour, in a sub-folder of its own."""
    for k, name in enumerate(("blue", "green", "red")):
        random = np.random.default_rng(k)
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.roll([200, 60, 60], k)[::-1] + random.normal(0, 30, (side, side, 3))
            pixels = np.clip(pixels, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")
    return folder


# kill_at 3:SIGTERM sends that signal after the third update, save:SIGKILL when the script
# first writes weights.
PRELUDE = """
import os, signal
import jsonargparse, matplotlib.pyplot, PIL.Image, safetensors.torch, scipy.ndimage
import scipy.sparse.csgraph, sklearn.cluster, sklearn.datasets, tensorboardX, timm, torch
import tqdm.contrib.logging, yaml
from torch.optim.optimizer import register_optimizer_step_post_hook

torch.optim.AdamW([torch.zeros(1)])  # loads hundreds of modules

def kill_at(place, name):
    def hit(*_):
        hit.n += 1
        if place == "save" or hit.n == int(place):
            os.kill(os.getpid(), getattr(signal, name))
    hit.n = 0
    if place == "save":
        safetensors.torch.save_file = hit
    else:
        register_optimizer_step_post_hook(hit)
"""


def fixtures(config, source):
    """checkout, cold, whole and stopped of a module; source: its fixture of the data's folder.

    cold: scripts that load timm by themselves, for where the hub's cache is, is read on import.
    """

    def lend(prelude):
        @pytest.fixture(scope="module")
        def fixture(tmp_path_factory, request):
            folder = tmp_path_factory.mktemp(source)
            of = config.format(request.getfixturevalue(source))
            checkout = Checkout(folder, "unsup_seg_torch", of, prelude)
            yield checkout
            checkout.close()

        return fixture

    @pytest.fixture(scope="module")
    def finished_run(checkout):
        """What train.py answers, and the finished run, predicted and scored."""
        answer = checkout.train()
        assert answer.code == 0, answer.err
        checkout.score(answer.run)
        return answer, answer.run

    @pytest.fixture(scope="module")
    def stopped(checkout):
        return checkout.train(kill_at="3:SIGTERM").run

    return lend(PRELUDE), lend(PRELUDE.replace("timm, ", "")), finished_run, stopped


def cache(folder, repository, net):
    """Weights as the hub's own client keeps what it has fetched."""
    place = folder / f"models--{repository.replace('/', '--')}"
    (place / "snapshots/abc").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs/main").write_text("abc")
    save_file(net.state_dict(), place / "snapshots/abc/model.safetensors")
