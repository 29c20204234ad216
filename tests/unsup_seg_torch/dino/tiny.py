"""A tiny DINO and noisy images of three colors."""

import numpy as np

from unsup_seg_torch.dino import config

MODEL = {"patch_size": 4, "width": 32, "depth": 1, "n_heads": 2, "hidden": 32, "bottleneck": 16}
MODEL |= {"n_outputs": 24, "drop_path": 0.0}
VIEWS = {"large": 16, "small": 8, "n_small": 2}


def make_config(**training):
    training = {"batch_size": 8, "n_epochs": 4} | VIEWS | training
    return config.Config(model=config.Model(**MODEL), training=config.Training(**training))


def colored_squares():
    """24 images (20, 20, 3): squares of three colors on a gray background, with noise."""
    random = np.random.default_rng(0)
    pixels = random.normal(120, 12, (24, 20, 20, 3))
    for i, image in enumerate(pixels):
        image[4:14, 5:15, i % 3] += 100
    return np.clip(pixels, 0, 255).astype(np.uint8)
