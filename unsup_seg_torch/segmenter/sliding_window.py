"""Sliding-window and multi-scale inference for images of any size."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common import images
from common.pytorch.images import to_tensor
from common.pytorch.precision import autocast
from unsup_seg_torch.postprocess import crf
from unsup_seg_torch.segmenter import config, data, model

OVERLAP = 32  # pixels of two windows, if the config has no stride
BATCH = 4  # windows at once
MAX_ASPECT = 16  # windows along the longer side of an image that is enlarged


def anchors(side: int, window: int, stride: int) -> list[int]:
    """Starts of windows that cover `side`, at least `window`; the last one ends with it."""
    return [*range(0, side - window, stride), side - window]


def fit_window(size: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """The smallest size (h, w) in the same proportions that contains a window.

    An image of a few rows or columns would need gigabytes: its longer side is MAX_ASPECT windows.
    """
    (h, w), (height, width) = size, window
    if h >= height and w >= width:
        return size
    if height * w >= width * h:  # the height needs the larger factor
        return height, min(max(int(w / h * height), width), max(w, MAX_ASPECT * width))
    return min(max(int(h / w * width), height), max(h, MAX_ASPECT * height)), width


@torch.no_grad()
def logits(
    net: model.Segmenter, image: Tensor, window: tuple[int, int], stride: int | None = None
) -> Tensor:
    """(3, h, w) in [0, 1] -> (k, h, w): the mean over the windows that contain a pixel.

    The image is at least as large as a window. stride None: the window less OVERLAP.
    """
    (h, w), (height, width) = image.shape[1:], window
    ys = anchors(h, height, stride or max(height - OVERLAP, 1))
    xs = anchors(w, width, stride or max(width - OVERLAP, 1))
    windows = [(slice(y, y + height), slice(x, x + width)) for y in ys for x in xs]
    total = image.new_zeros(net.n_classes, h, w)
    count = image.new_zeros(h, w)
    for first in range(0, len(windows), BATCH):
        batch = windows[first : first + BATCH]
        batch_logits = net(torch.stack([image[:, y, x] for y, x in batch])).float()
        for (y, x), window_logits in zip(batch, batch_logits, strict=True):
            total[:, y, x] += window_logits
            count[y, x] += 1
    return total / count


@torch.no_grad()
def probabilities(net: model.Segmenter, image: np.ndarray, cfg: config.Config) -> np.ndarray:
    """Class probabilities of each pixel: uint8 (h, w, 3) -> float32 (k, h, w).

    The mean of softmaxes over model.scales and, with model.flip, over mirrored images. An image
    that is smaller than a window is enlarged to contain it, as in the authors' code.
    """
    device = next(net.parameters()).device
    h, w = image.shape[:2]
    base = data.fit_short_side((h, w), cfg.dataset.short_side)
    total = torch.zeros(net.n_classes, h, w)
    flips = (False, True) if cfg.model.flip else (False,)
    for scale in cfg.model.scales:
        size = tuple(max(round(side * scale), 1) for side in base)
        scaled = image if size == (h, w) else images.resize(image, size)
        pixels = to_tensor(scaled[None])[0].to(device)
        enlarged = fit_window(size, cfg.dataset.crop)
        if enlarged != size:
            pixels = F.interpolate(pixels[None], enlarged, mode="bilinear")[0]
        for flip in flips:
            view = pixels.flip(2) if flip else pixels
            with autocast(cfg.training.precision, device):
                predicted = logits(net, view, cfg.dataset.crop, cfg.model.stride)
            predicted = predicted.flip(2) if flip else predicted
            if enlarged != (h, w):
                predicted = F.interpolate(predicted[None], (h, w), mode="bilinear")[0]
            total += predicted.softmax(0).cpu()
    total /= len(cfg.model.scales) * len(flips)
    if cfg.model.crf_iterations:
        return crf.refine(total.numpy(), image, cfg.model.crf_iterations)
    return total.numpy()
