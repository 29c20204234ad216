"""Attention of a vision transformer: the class token's, in the last block, per head.

Caron et al. 2021, figures 1, 3 and 10. Only the class token's row is computed, n numbers per head
instead of n x n, so that large images and videos fit into memory.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import images
from unsup_seg_torch.vit.encoder import Encoder

MASS = 0.6  # fraction of the attention that the patches of a mask contain, as in the paper


@torch.no_grad()
def last_tokens(encoder: Encoder, pixels: Tensor) -> Tensor:
    """Input of the last block's attention: images (b, 3, h, w) in [0, 1] -> (b, p + n, d)"""
    captured: list[Tensor] = []
    norm = encoder.net.blocks[-1].norm1
    handle = norm.register_forward_hook(lambda module, inputs, tokens: captured.append(tokens))
    try:
        encoder(pixels)
    finally:
        handle.remove()
    return captured[0]


def _project(attention: nn.Module, tokens: Tensor, part: int) -> Tensor:
    """Queries (part 0), keys (1) or values (2) of tokens (b, n, d) -> (b, heads, n, d')"""
    d = attention.num_heads * attention.head_dim
    rows = slice(part * d, (part + 1) * d)
    bias = None if attention.qkv.bias is None else attention.qkv.bias[rows]
    projected = F.linear(tokens, attention.qkv.weight[rows], bias)
    projected = projected.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
    return (attention.q_norm, attention.k_norm, nn.Identity())[part](projected)


@torch.no_grad()
def class_attention(encoder: Encoder, pixels: Tensor) -> Tensor:
    """The class token's attention to each patch: (b, 3, h, w) -> (b, heads, rows, columns).

    Without its attention to itself and to registers, so that a map sums to less than 1.
    """
    attention = encoder.net.blocks[-1].attn
    tokens = last_tokens(encoder, pixels)
    query, keys = _project(attention, tokens[:, :1], 0), _project(attention, tokens, 1)
    weights = (attention.scale * query @ keys.transpose(2, 3)).float().softmax(3)
    grid = encoder.grid(*pixels.shape[2:])
    return weights[:, :, 0, encoder.n_prefix :].unflatten(2, grid)


@torch.no_grad()
def keys(encoder: Encoder, pixels: Tensor) -> Tensor:
    """The last block's keys of all heads for each patch: (b, 3, h, w) -> (b, rows, columns, d)"""
    tokens = last_tokens(encoder, pixels)[:, encoder.n_prefix :]
    projected = _project(encoder.net.blocks[-1].attn, tokens, 1)  # (b, heads, n, d')
    grid = encoder.grid(*pixels.shape[2:])
    return projected.transpose(1, 2).flatten(2).unflatten(1, grid)


def mass_mask(maps: np.ndarray, mass: float = MASS) -> np.ndarray:
    """The fewest patches that contain that fraction of each map: (..., h, w) -> bool (..., h, w)"""
    flat = maps.reshape(*maps.shape[:-2], -1)
    order = np.argsort(-flat, axis=-1, kind="stable")
    ordered = np.take_along_axis(flat, order, -1).astype(np.float64)
    before = np.cumsum(ordered, -1) - ordered  # sum of all larger patches
    kept = before < mass * ordered.sum(-1, keepdims=True)
    mask = np.zeros(flat.shape, bool)
    np.put_along_axis(mask, order, kept, -1)
    return mask.reshape(maps.shape)


# ---- rendering


def enlarge(maps: np.ndarray, size: tuple[int, int], patch_size: int) -> np.ndarray:
    """Maps (k, rows, columns) to the pixels (h, w) of the image, one block per patch."""
    big = maps.repeat(patch_size, axis=1).repeat(patch_size, axis=2)
    return big[:, : size[0], : size[1]]


def heatmap(values: np.ndarray) -> np.ndarray:
    """A map (h, w) in colors from black over red and yellow to white: uint8 (h, w, 3)"""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / max(high - low, 1e-12)
    return images.to_uint8(np.stack([3 * scaled, 3 * scaled - 1, 3 * scaled - 2], -1))


def blend(image: np.ndarray, values: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """The heatmap of a map (h, w) over the image (h, w, 3)."""
    return np.rint((1 - alpha) * image + alpha * heatmap(values)).astype(np.uint8)


def color_heads(image: np.ndarray, masks: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The masks (k, h, w) of all heads over the image, one color per head; the strongest wins.

    maps (k, h, w): strength of a head at a pixel, relative to its own maximum.
    """
    strength = np.where(masks, maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12), 0)
    labels = np.where(masks.any(0), strength.argmax(0), -1)
    return images.overlay(image // 2, labels, 0.7)
