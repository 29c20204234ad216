"""Encoders of timm and of custom sizes."""

import pytest
import torch

from common import UserError
from tests.unsup_seg_torch.vit.conftest import build
from unsup_seg_torch.vit import encoder as encoders


def test_image_of_any_size_has_tokens_of_its_padded_grid():
    encoder = build().eval()
    images = torch.rand(2, 3, 20, 41)
    assert encoder.grid(20, 41) == (3, 6)
    assert encoder(images).shape == (2, 1 + 3 * 6, 64)
    padded = encoder.pad(images)
    assert padded.shape == (2, 3, 24, 48)
    assert not padded[:, :, 20:].any() and not padded[..., 41:].any()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in encoders.IMAGENET)
    assert torch.equal(padded[:, :, :20, :41], (images - mean) / std)


@pytest.mark.parametrize("patch_size, n_convolutions", [(8, 7), (12, 5), (3, 1)])
def test_convolutional_stem_has_the_same_patches(patch_size, n_convolutions):
    encoder = build(patch_size=patch_size, stem=True).eval()
    stem = encoder.net.patch_embed.proj
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in stem) == n_convolutions
    images = torch.rand(2, 3, 4 * patch_size, 5 * patch_size)
    before = encoder(images)
    assert before.shape == (2, 1 + 4 * 5, 64)
    images[:, :, : 4 * patch_size // 2] = 0
    assert stem(images).shape == (2, 64, 4, 5) and not torch.equal(before, encoder(images))


def test_timm_encoder_has_its_own_statistics_and_heads():
    encoder = encoders.build("vit_tiny_patch16_224", (32, 48))
    assert encoder.statistics == ((0.5,) * 3, (0.5,) * 3)
    assert (encoder.patch_size, encoder.width, encoder.n_heads, encoder.n_prefix) == (16, 192, 3, 1)
    assert encoder.net.patch_embed.grid_size == (2, 3)
    assert encoders.build("deit_tiny_distilled_patch16_224", (32, 32)).n_prefix == 2


@pytest.mark.parametrize(
    "name, reason",
    [
        ("vit_tiny_patch16_38", "did you mean vit_tiny_patch16_384"),
        ("test_resnet", "is not a plain vision transformer of timm"),
    ],
)
def test_unknown_names_and_other_networks_are_refused(name, reason):
    with pytest.raises(UserError, match=reason):
        encoders.build(name, (32, 32))
