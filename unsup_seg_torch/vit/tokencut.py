"""TokenCut (Wang et al. 2022): segments by normalized cuts of patch features, without labels.

The features are the keys of a vision transformer's last block, or the maps of any timm network.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from unsup_seg_torch.postprocess import crf, spectral
from unsup_seg_torch.vit import attention
from unsup_seg_torch.vit.encoder import IMAGENET, Encoder

# As in the paper: affinity 1 above this cosine, else a small one.
THRESHOLD, MIN_AFFINITY = 0.2, 1e-5
CERTAINTY = 0.8  # probability of a patch's label before the refinement


@torch.no_grad()
def features(net: nn.Module, pixels: Tensor) -> Tensor:
    """(b, 3, h, w) in [0, 1] -> (b, rows, columns, d): of an Encoder the keys of its last block.

    Of any other timm network the output of forward_features, tokens or maps.
    """
    if isinstance(net, Encoder):
        return attention.keys(net, pixels)
    statistics = getattr(net, "default_cfg", {"mean": IMAGENET[0], "std": IMAGENET[1]})
    mean, std = (
        torch.tensor(statistics[key], device=pixels.device).view(3, 1, 1) for key in ("mean", "std")
    )
    output = net.forward_features((pixels - mean) / std)
    if output.ndim == 4:
        is_channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"  # as of Swin
        return output if is_channels_last else output.permute(0, 2, 3, 1)
    output = output[:, getattr(net, "num_prefix_tokens", 0) :]
    h, w = pixels.shape[2:]
    rows = round((output.shape[1] * h / w) ** 0.5)
    return output.unflatten(1, (rows, -1))


def similarities(patches: np.ndarray) -> np.ndarray:
    """Cosine similarities of the features (rows, columns, d) of all patches: (n, n)"""
    flat = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    return flat @ flat.T


def two_way(patches: np.ndarray, threshold: float = THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
    """The salient object: features (rows, columns, d) -> mask bool and eigenvector of patches.

    The second eigenvector is split at its mean; the object is the connected component that contains
    its largest absolute value.
    """
    grid = patches.shape[:2]
    if grid[0] * grid[1] < 2:
        return np.ones(grid, bool), np.zeros(grid)
    affinities = np.where(similarities(patches) > threshold, 1.0, MIN_AFFINITY)
    vector = spectral.eigenvectors(affinities, 2)[1][:, 1].reshape(grid)
    seed = np.unravel_index(np.abs(vector).argmax(), grid)
    side = vector > vector.mean()
    side = side if side[seed] else ~side
    components, _ = ndimage.label(side)
    return components == components[seed], vector


def k_ways(patches: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """2 to `most` segments: features (rows, columns, d) -> labels (most - 1, rows, columns) from 0.

    k-means on the first k eigenvectors of the cosines, negative ones clipped. With fewer patches
    than segments, each patch is a segment.
    """
    grid = patches.shape[:2]
    n = grid[0] * grid[1]
    if n < 2:
        return np.zeros((most - 1, *grid), np.int64)
    affinities = np.maximum(similarities(patches), MIN_AFFINITY)
    vectors = spectral.eigenvectors(affinities, min(most, n))[1]
    labels = [spectral.cluster_vectors(vectors[:, :k], seed) for k in range(2, most + 1)]
    return np.stack(labels).reshape(-1, *grid)


def refine(
    labels: np.ndarray, image: np.ndarray, patch_size: int, n_iterations: int = 5
) -> np.ndarray:
    """Labels of patches (rows, columns) aligned to the edges of the image uint8 (h, w, 3): (h, w).

    By the fully connected CRF; with no iterations each patch is a block.
    """
    h, w = image.shape[:2]
    blocks = attention.enlarge(labels[None], (h, w), patch_size)[0]
    k = int(labels.max()) + 1
    if n_iterations == 0 or k == 1:
        return blocks
    probabilities = np.full((k, h, w), (1 - CERTAINTY) / (k - 1), np.float32)
    np.put_along_axis(probabilities, blocks[None], CERTAINTY, 0)
    return crf.refine(probabilities, image, n_iterations).argmax(0)
