"""After the network: probabilities meet the edges of the picture, regions join to a hierarchy."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from common.bsds import components
from common.bsds.hierarchy import Hierarchy, merge
from unsup_seg_torch import config, data

SIDE = 240  # pixels: the longer side at which regions are found, whose constants are for it
# Chosen on pictures of BSDS500 train, for the covering at one height and at each picture's.
SMOOTHING, SCALE, MIN_PIXELS = 0.03, 150.0, 20  # of Felzenszwalb's regions, on smoothed colours
PROBABILITIES_WEIGHT, CONTRAST_WEIGHT, SIZE_POWER = 0.2, 1.5, 0.3
LEAST = 1e-6  # contrast, of a picture without any
# At these heights a hierarchy is cut for the benchmark.
HEIGHTS = tuple(float(f"{height:.3g}") for height in np.geomspace(0.5, 60, 24))
BASELINE_SCALES = (200.0, 500.0, 1200.0)  # Felzenszwalb's; larger ones join more


def enlarge(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(k, h, w) float32 to (k, *size), bilinear."""
    if probabilities.shape[1:] == tuple(size):
        return probabilities
    maps = [
        Image.fromarray(each).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        for each in np.ascontiguousarray(probabilities, np.float32)
    ]
    return np.clip(np.stack([np.asarray(each) for each in maps]), 0, 1)


def hierarchy(probabilities: np.ndarray, image: np.ndarray, cfg: config.Model) -> Hierarchy:
    """Probabilities (k, h, w) of an image uint8 (h, w, 3) -> its regions and how they join.

    `labels`: the connected pieces of the most probable labels. `felzenszwalb`: regions of colour.
    Either way the two neighbours join first whose mean colours and probabilities are most alike,
    and between which there is least of an edge. Heights are relative to the edges of the picture,
    so that one height serves pictures of little contrast and of much.
    """
    size, image = image.shape[:2], data.reduce(image, SIDE)
    probabilities = enlarge(probabilities, image.shape[:2])
    colours = smooth(image)
    labels = probabilities.argmax(0)
    if cfg.regions == "labels":
        finest = components(labels, 4)
    else:
        finest = components(felzenszwalb(colours, SCALE), 4)
    features = np.concatenate(
        [colours, PROBABILITIES_WEIGHT * probabilities.transpose(1, 2, 0)], axis=2
    )
    edges = steps(colours)
    found = merge(finest, features, edges, contrast_weight=CONTRAST_WEIGHT, size_power=SIZE_POWER)
    contrast = max(float(np.sqrt((edges**2).mean())), LEAST)
    return Hierarchy(data.nearest(found.labels, size), found.pairs, found.heights / contrast)


def smooth(image: np.ndarray) -> np.ndarray:
    """Colours without texture: uint8 (h, w, 3) -> Lab in hundreds, of the least total variation.

    Rudin, Osher and Fatemi 1992.
    """
    from skimage.color import rgb2lab
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(rgb2lab(image) / 100, SMOOTHING, channel_axis=-1)


def felzenszwalb(image: np.ndarray, scale: float) -> np.ndarray:
    """Graph-based segments of (h, w, 3) -> (h, w) int64 of 20 pixels or more."""
    from skimage.segmentation import felzenszwalb

    return felzenszwalb(image, scale, sigma=0.3, min_size=MIN_PIXELS).astype(np.int64)


def steps(values: np.ndarray) -> np.ndarray:
    """How much each pixel differs from those beside it: (h, w, c) -> (h, w), the larger way."""
    found = np.zeros(values.shape[:2])
    for axis in (0, 1):
        gaps = np.linalg.norm(np.diff(values, axis=axis), axis=-1)
        for pad in ((1, 0), (0, 1)):
            padding = [pad if each == axis else (0, 0) for each in (0, 1)]
            np.maximum(found, np.pad(gaps, padding), out=found)
    return found


def baseline(image: np.ndarray, scales: Sequence[float] = BASELINE_SCALES) -> np.ndarray:
    """Felzenszwalb's segments alone, one map a scale: uint8 (h, w, 3) -> (scales, h, w)."""
    from skimage.segmentation import felzenszwalb

    maps = [felzenszwalb(image, scale, sigma=0.5, min_size=100) for scale in scales]
    return np.stack(maps).astype(np.uint16)
