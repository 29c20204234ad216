"""After the network: regions that follow the edges of the image, merged to a hierarchy."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from common import images
from common.bsds import components, superpixels
from common.bsds.hierarchy import Hierarchy, merge
from unsup_seg_torch.wnet import config

SIDE = 240  # longer side in pixels at which regions are found; the constants below depend on it
# Chosen on images of BSDS500 train, for the covering at one height and at the best of each image.
SCALE = 150.0  # of Felzenszwalb's regions, on smoothed colors
PROBABILITIES_WEIGHT, CONTRAST_WEIGHT, SIZE_POWER = 0.2, 1.5, 0.3
MIN_CONTRAST = 1e-6  # of an image without any
# Heights at which a hierarchy is cut for the benchmark.
HEIGHTS = tuple(float(f"{height:.3g}") for height in np.geomspace(0.5, 60, 24))
BASELINE_SCALES = (200.0, 500.0, 1200.0)  # of Felzenszwalb; larger ones give larger regions


def enlarge(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(k, h, w) float32 to (k, *size), bilinear."""
    if probabilities.shape[1:] == tuple(size):
        return probabilities
    maps = [
        Image.fromarray(each).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        for each in np.ascontiguousarray(probabilities, np.float32)
    ]
    return np.clip(np.stack([np.asarray(each) for each in maps]), 0, 1)


def hierarchy(probabilities: np.ndarray, image: np.ndarray, model_cfg: config.Model) -> Hierarchy:
    """Probabilities (k, h, w) of an image uint8 (h, w, 3) -> its merged regions.

    The finest regions are the connected components of the most probable labels (model.regions
    labels) or superpixels (felzenszwalb). Neighbors merge in the order of their difference in mean
    color and mean probabilities and of the contrast along their boundary. Heights are relative to
    the contrast of the image, so that one height serves all images.
    """
    size, image = image.shape[:2], images.shrink(image, SIDE)
    probabilities = enlarge(probabilities, image.shape[:2])
    colors = superpixels.smooth(image)
    if model_cfg.regions == "labels":
        finest = components(probabilities.argmax(0), 4)
    else:
        finest = components(superpixels.felzenszwalb(colors, SCALE, sigma=0.3), 4)
    features = np.concatenate(
        [colors, PROBABILITIES_WEIGHT * probabilities.transpose(1, 2, 0)], axis=2
    )
    edges = color_steps(colors)
    merged = merge(finest, features, edges, contrast_weight=CONTRAST_WEIGHT, size_power=SIZE_POWER)
    contrast = max(float(np.sqrt((edges**2).mean())), MIN_CONTRAST)
    labels = images.resize_labels(merged.labels, size)
    return Hierarchy(labels, merged.pairs, merged.heights / contrast)


def color_steps(colors: np.ndarray) -> np.ndarray:
    """Largest color difference of each pixel to its four neighbors: (h, w, c) -> (h, w)."""
    steps = np.zeros(colors.shape[:2])
    for axis in (0, 1):
        differences = np.linalg.norm(np.diff(colors, axis=axis), axis=-1)
        for pad in ((1, 0), (0, 1)):
            padding = [pad if each == axis else (0, 0) for each in (0, 1)]
            np.maximum(steps, np.pad(differences, padding), out=steps)
    return steps


def baseline(image: np.ndarray, scales: Sequence[float] = BASELINE_SCALES) -> np.ndarray:
    """Felzenszwalb's segments alone, one map per scale: uint8 (h, w, 3) -> (scales, h, w)."""
    maps = [superpixels.felzenszwalb(image, scale, min_pixels=100) for scale in scales]
    return np.stack(maps).astype(np.uint16)
