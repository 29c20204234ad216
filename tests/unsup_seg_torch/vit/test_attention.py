"""The class token's attention against the whole matrix, and masks against a loop."""

import numpy as np
import pytest
import torch

from unsup_seg_torch.vit import attention
from unsup_seg_torch.vit import encoder as encoders


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (19, 50)])
def test_class_attention_is_a_row_of_the_whole_matrix(encoder, size):
    images, captured = torch.rand(2, 3, *size), []
    last = encoder.net.blocks[-1].attn
    last.fused_attn = False
    handle = last.attn_drop.register_forward_hook(
        lambda module, inputs, output: captured.append(output)
    )
    with torch.no_grad():
        encoder(images)
    handle.remove()
    last.fused_attn = True
    (matrix,) = captured
    rows, columns = encoder.grid(*size)
    n = rows * columns
    assert matrix.shape == (2, 4, 1 + n, 1 + n)
    maps = attention.class_attention(encoder, images)
    assert maps.shape == (2, 4, rows, columns)
    torch.testing.assert_close(maps.flatten(2), matrix[:, :, 0, 1:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "test_vit"])
def test_class_attention_excludes_all_prefix_tokens(name):
    encoder = encoders.build(name, (64, 64)).eval()
    maps = attention.class_attention(encoder, torch.rand(1, 3, 64, 96))
    assert maps.shape == (1, encoder.n_heads, *encoder.grid(64, 96))
    assert (maps.sum((2, 3)) < 1).all()


def test_keys_are_those_of_the_last_block(encoder):
    images, captured = torch.rand(1, 3, 32, 40), []
    handle = encoder.net.blocks[-1].attn.k_norm.register_forward_hook(
        lambda module, inputs, output: captured.append(output)
    )
    keys = attention.keys(encoder, images)
    handle.remove()
    assert keys.shape == (1, 4, 5, 48)
    expected = captured[0][:, :, 1:].transpose(1, 2).flatten(2).unflatten(1, (4, 5))
    torch.testing.assert_close(keys, expected)


def test_mask_has_the_fewest_patches_with_the_mass():
    maps = np.random.default_rng(0).random((3, 5, 6)) ** 3
    masks = attention.mass_mask(maps, 0.6)
    for values, mask in zip(maps, masks, strict=True):
        n, total = 0, 0.0
        for value in sorted(values.ravel(), reverse=True):
            if total >= 0.6 * values.sum():
                break
            n, total = n + 1, total + value
        assert mask.sum() == n
        assert values[mask].min() > values[~mask].max()
    assert attention.mass_mask(maps, 1.0).all() and not attention.mass_mask(maps, 0.0).any()


def test_enlarge_repeats_each_patch():
    big = attention.enlarge(np.arange(6).reshape(1, 2, 3), (15, 20), 8)
    assert big.shape == (1, 15, 20)
    assert big[0, 7, 7] == 0 and big[0, 8, 8] == 4 and big[0, 14, 19] == 5


def test_heads_have_colors_of_their_own():
    maps = np.zeros((2, 4, 4))
    maps[0, :2], maps[1, 2:] = 1, 0.1
    image = np.full((4, 4, 3), 100, np.uint8)
    figure = attention.color_heads(image, maps > 0, maps)
    assert len(np.unique(figure.reshape(-1, 3), axis=0)) == 2
    assert np.array_equal(attention.color_heads(image, maps > 5, maps), image // 2)
    heatmap = attention.heatmap(maps[0])
    assert heatmap.min() == 0 and heatmap.max() == 255
