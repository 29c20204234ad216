"""Regions of similar color, from which `hierarchy.merge` starts."""

import warnings

import numpy as np

SMOOTHING = 0.03  # weight of the total variation, chosen on BSDS500 train


def smooth(image: np.ndarray) -> np.ndarray:
    """Total-variation denoising (Rudin, Osher and Fatemi 1992): removes texture, keeps edges.

    (h, w, 3) uint8, or floats in [0, 1] -> Lab divided by 100. Images of other than three channels
    are denoised without conversion.
    """
    from skimage.color import rgb2lab
    from skimage.restoration import denoise_tv_chambolle

    colors = rgb2lab(image) / 100 if image.shape[2] == 3 else image
    return denoise_tv_chambolle(colors, SMOOTHING, channel_axis=-1)


def felzenszwalb(
    image: np.ndarray, scale: float, sigma: float = 0.5, min_pixels: int = 20
) -> np.ndarray:
    """Graph-based segments (Felzenszwalb and Huttenlocher 2004): (h, w, c) -> (h, w) int64.

    scale: larger values give larger segments; sigma: standard deviation of the blur in pixels.
    """
    from skimage.segmentation import felzenszwalb

    with warnings.catch_warnings():  # scikit-image warns unless there are 1 or 3 channels
        warnings.simplefilter("ignore", RuntimeWarning)
        labels = felzenszwalb(image, scale, sigma=sigma, min_size=min_pixels, channel_axis=-1)
    return labels.astype(np.int64)
