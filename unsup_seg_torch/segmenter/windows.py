"""How Segmenter looks at an image of any size: in windows as large as its crops, at some scales."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common import images
from unsup_seg_torch import crf, precision
from unsup_seg_torch import data as pictures_data
from unsup_seg_torch.segmenter import config, data, model

OVERLAP = 32  # pixels, of two windows where the config says no stride
BATCH = 4  # windows at once


def anchors(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that they cover `side`, the last one ending with it."""
    last = max(side - window, 0)
    return [*range(0, last, stride), last]


@torch.no_grad()
def logits(
    net: model.Segmenter, image: Tensor, window: tuple[int, int], stride: int | None = None
) -> Tensor:
    """(3, h, w) in [0, 1] -> (k, h, w): the mean over the windows that see a pixel.

    An image that is smaller than a window is seen as it is. stride None: a little less than one.
    """
    h, w = image.shape[1:]
    height, width = min(window[0], h), min(window[1], w)
    ys = anchors(h, height, stride or max(height - OVERLAP, 1))
    xs = anchors(w, width, stride or max(width - OVERLAP, 1))
    places = [(slice(y, y + height), slice(x, x + width)) for y in ys for x in xs]
    total = image.new_zeros(net.n_classes, h, w)
    count = image.new_zeros(h, w)
    for first in range(0, len(places), BATCH):
        some = places[first : first + BATCH]
        found = net(torch.stack([image[:, y, x] for y, x in some])).float()
        for (y, x), one in zip(some, found, strict=True):
            total[:, y, x] += one
            count[y, x] += 1
    return total / count


@torch.no_grad()
def probabilities(net: model.Segmenter, image: np.ndarray, cfg: config.Config) -> np.ndarray:
    """Of each class at each pixel: uint8 (h, w, 3) -> float32 (k, h, w).

    The mean over model.scales, and over mirrored images with model.flip, of softmaxes.
    """
    device = next(net.parameters()).device
    h, w = image.shape[:2]
    base = data.short((h, w), cfg.dataset.short_side)
    found = torch.zeros(net.n_classes, h, w)
    flips = (False, True) if cfg.model.flip else (False,)
    for scale in cfg.model.scales:
        size = tuple(max(round(side * scale), 1) for side in base)
        scaled = image if size == (h, w) else images.resize(image, size)
        pixels = pictures_data.to_float(scaled[None])[0].to(device)
        for flip in flips:
            with precision.autocast(cfg.training.precision, device):
                seen = logits(
                    net, pixels.flip(2) if flip else pixels, cfg.dataset.crop, cfg.model.stride
                )
            seen = seen.flip(2) if flip else seen
            if size != (h, w):
                seen = F.interpolate(seen[None], (h, w), mode="bilinear")[0]
            found += seen.softmax(0).cpu()
    found /= len(cfg.model.scales) * len(flips)
    if cfg.model.crf_iterations:
        return crf.refine(found.numpy(), image, cfg.model.crf_iterations)
    return found.numpy()
