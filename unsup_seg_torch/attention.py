"""Where a vision transformer looks: the class token's attention in the last block, per head.

Caron et al. 2021, figures 1, 3 and 10. Only the class token's row is computed, n numbers a head and
never n x n, so that large images and videos fit into memory.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import images
from unsup_seg_torch.encoders import Encoder

MASS = 0.6  # of the attention, that the patches of a mask hold; the paper's


@torch.no_grad()
def last_tokens(encoder: Encoder, pictures: Tensor) -> Tensor:
    """What the last block's attention is given: (b, 3, h, w) in [0, 1] -> (b, p + n, d)"""
    kept: list[Tensor] = []
    norm = encoder.net.blocks[-1].norm1
    handle = norm.register_forward_hook(lambda module, given, tokens: kept.append(tokens))
    try:
        encoder(pictures)
    finally:
        handle.remove()
    return kept[0]


def _project(attention: nn.Module, tokens: Tensor, part: int) -> Tensor:
    """The queries (part 0), keys (1) or values (2) of tokens (b, n, d) -> (b, heads, n, d')"""
    d = attention.num_heads * attention.head_dim
    rows = slice(part * d, (part + 1) * d)
    bias = None if attention.qkv.bias is None else attention.qkv.bias[rows]
    found = F.linear(tokens, attention.qkv.weight[rows], bias)
    found = found.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
    return (attention.q_norm, attention.k_norm, nn.Identity())[part](found)


@torch.no_grad()
def class_rows(encoder: Encoder, pictures: Tensor) -> Tensor:
    """The class token's attention to every patch: (b, 3, h, w) -> (b, heads, rows, columns).

    What it pays to itself and to registers is left out, so that a map sums to less than 1.
    """
    attention = encoder.net.blocks[-1].attn
    tokens = last_tokens(encoder, pictures)
    query, keys = _project(attention, tokens[:, :1], 0), _project(attention, tokens, 1)
    weights = (
        (attention.scale * query @ keys.transpose(2, 3)).float().softmax(3)
    )  # (b, heads, 1, n)
    grid = encoder.grid(*pictures.shape[2:])
    return weights[:, :, 0, encoder.n_prefix :].unflatten(2, grid)


@torch.no_grad()
def keys(encoder: Encoder, pictures: Tensor) -> Tensor:
    """The last block's keys of all heads, patch by patch: (b, 3, h, w) -> (b, rows, columns, d)"""
    tokens = last_tokens(encoder, pictures)[:, encoder.n_prefix :]
    found = _project(encoder.net.blocks[-1].attn, tokens, 1)  # (b, heads, n, d')
    grid = encoder.grid(*pictures.shape[2:])
    return found.transpose(1, 2).flatten(2).unflatten(1, grid)


def mass_mask(maps: np.ndarray, mass: float = MASS) -> np.ndarray:
    """The fewest patches that hold so much of each map: (..., h, w) -> bool (..., h, w)"""
    flat = maps.reshape(*maps.shape[:-2], -1)
    order = np.argsort(-flat, axis=-1, kind="stable")
    ordered = np.take_along_axis(flat, order, -1).astype(np.float64)
    before = np.cumsum(ordered, -1) - ordered  # what the patches ahead of one hold already
    kept = before < mass * ordered.sum(-1, keepdims=True)
    mask = np.zeros(flat.shape, bool)
    np.put_along_axis(mask, order, kept, -1)
    return mask.reshape(maps.shape)


# ---- pictures


def enlarge(maps: np.ndarray, size: tuple[int, int], patch_size: int) -> np.ndarray:
    """Maps (k, rows, columns) to the pixels (h, w) of the image, each patch one block of them."""
    big = maps.repeat(patch_size, axis=1).repeat(patch_size, axis=2)
    return big[:, : size[0], : size[1]]


def heat(one: np.ndarray) -> np.ndarray:
    """A map (h, w) as colours from black over red and yellow to white: uint8 (h, w, 3)"""
    low, high = float(one.min()), float(one.max())
    value = (one - low) / max(high - low, 1e-12)
    return images.to_uint8(np.stack([3 * value, 3 * value - 1, 3 * value - 2], -1))


def blend(image: np.ndarray, one: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """The image (h, w, 3) beneath the heat of a map (h, w)."""
    return np.rint((1 - alpha) * image + alpha * heat(one)).astype(np.uint8)


def colours(image: np.ndarray, masks: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """All heads in one figure: the masks (k, h, w) of each, tinted; of several the strongest wins.

    maps (k, h, w) say how strong a head is at a pixel, each against its own largest.
    """
    strength = np.where(masks, maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-12), 0)
    labels = np.where(masks.any(0), strength.argmax(0), -1)
    return images.overlay(image // 2, labels, 0.7)
