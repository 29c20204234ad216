"""Segments from features without a label: normalised cuts of patches (Wang et al. 2022, TokenCut).

The features are keys of any vision transformer's last block, or the maps of any network of timm.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from unsup_seg_torch import attention, crf, spectral
from unsup_seg_torch.encoders import IMAGENET, Encoder

THRESHOLD, TIE = 0.2, 1e-5  # the paper's: patches more alike than the first are tied, others hardly
CERTAINTY = 0.8  # that the refinement begins with: of a patch's label


@torch.no_grad()
def features(net: nn.Module, pictures: Tensor) -> Tensor:
    """(b, 3, h, w) in [0, 1] -> (b, rows, columns, d): of an Encoder the keys of its last block.

    Of any other network of timm what its forward_features gives, as tokens or as maps.
    """
    if isinstance(net, Encoder):
        return attention.keys(net, pictures)
    statistics = getattr(net, "default_cfg", {"mean": IMAGENET[0], "std": IMAGENET[1]})
    mean, std = (
        torch.tensor(statistics[key], device=pictures.device).view(3, 1, 1)
        for key in ("mean", "std")
    )
    found = net.forward_features((pictures - mean) / std)
    if found.ndim == 4:  # channels come last in Swin and its like
        is_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        return found if is_last else found.permute(0, 2, 3, 1)
    found = found[:, getattr(net, "num_prefix_tokens", 0) :]
    h, w = pictures.shape[2:]
    rows = round((found.shape[1] * h / w) ** 0.5)
    return found.unflatten(1, (rows, -1))


def similarities(patches: np.ndarray) -> np.ndarray:
    """Cosines between the features (rows, columns, d) of all patches -> (n, n)"""
    flat = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    return flat @ flat.T


def two_way(patches: np.ndarray, threshold: float = THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
    """The object of a picture: features (rows, columns, d) -> mask bool and eigenvector of patches.

    The second eigenvector is split at its mean; the side with the largest absolute value is
    the object, and of it the piece that this value lies in.
    """
    grid = patches.shape[:2]
    if grid[0] * grid[1] < 2:
        return np.ones(grid, bool), np.zeros(grid)
    ties = np.where(similarities(patches) > threshold, 1.0, TIE)
    vector = spectral.eigenvectors(ties, 2)[1][:, 1].reshape(grid)
    seed = np.unravel_index(np.abs(vector).argmax(), grid)
    side = vector > vector.mean()
    side = side if side[seed] else ~side
    pieces, _ = ndimage.label(side)
    return pieces == pieces[seed], vector


def k_ways(patches: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """2 to `most` segments of a picture: features (rows, columns, d) -> labels (s, rows, columns).

    Ties are cosines, those below 0 hardly any; k-means on the first k eigenvectors. Labels are from
    0; where there are fewer patches than segments, each is one.
    """
    grid = patches.shape[:2]
    n = grid[0] * grid[1]
    if n < 2:
        return np.zeros((most - 1, *grid), np.int64)
    ties = np.maximum(similarities(patches), TIE)
    vectors = spectral.eigenvectors(ties, min(most, n))[1]
    found = [spectral.of_vectors(vectors[:, :k], seed) for k in range(2, most + 1)]
    return np.stack(found).reshape(-1, *grid)


def refine(
    labels: np.ndarray, image: np.ndarray, patch_size: int, n_iterations: int = 5
) -> np.ndarray:
    """Labels of patches (rows, columns) to the edges of the image uint8 (h, w, 3): (h, w).

    By the fully connected CRF; without iterations each patch is a block.
    """
    h, w = image.shape[:2]
    blocks = attention.enlarge(labels[None], (h, w), patch_size)[0]
    k = int(labels.max()) + 1
    if n_iterations == 0 or k == 1:
        return blocks
    certain = (1 - CERTAINTY) / (k - 1)
    probabilities = np.full((k, h, w), certain, np.float32)
    np.put_along_axis(probabilities, blocks[None], CERTAINTY, 0)
    return crf.refine(probabilities, image, n_iterations).argmax(0)
