"""The decoders of Segmenter against loops over patches and classes."""

import pytest
import torch

from unsup_seg_torch import Segmenter
from unsup_seg_torch.segmenter import config, model
from unsup_seg_torch.vit import encoder


def build_encoder(**sizes):
    torch.manual_seed(0)
    return encoder.build(None, (16, 24), **{"patch_size": 8, "width": 64, "depth": 1} | sizes)


@pytest.mark.parametrize("decoder", ["linear", "mask"])
@pytest.mark.parametrize("cells", [1, 4])
@pytest.mark.parametrize("size", [(16, 24), (17, 30), (5, 5)])
def test_every_pixel_has_logits(decoder, cells, size):
    net = Segmenter(build_encoder(), 5, decoder=decoder, cells=cells).eval()
    images = torch.rand(2, 3, *size)
    rows, columns = -(-size[0] // 8), -(-size[1] // 8)
    assert net.coarse(images).shape == (2, 5, rows * cells, columns * cells)
    assert net(images).shape == (2, 5, *size)


def test_linear_decoder_maps_each_patch_separately():
    net = Segmenter(build_encoder(), 3, decoder="linear", cells=2).eval()
    images = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        tokens, logits = net.encoder(images)[0, 1:], net.coarse(images)[0]
        for patch in range(6):  # a loop over patches, cells and classes
            row, column = divmod(patch, 3)
            values = tokens[patch] @ net.decoder.head.weight.T + net.decoder.head.bias
            for cell in range(4):
                y, x = 2 * row + cell // 2, 2 * column + cell % 2
                expected = values[3 * cell : 3 * cell + 3]
                torch.testing.assert_close(logits[:, y, x], expected, atol=1e-5, rtol=1e-4)


def test_mask_is_the_cosine_of_class_and_patch_normalized_over_classes():
    net = Segmenter(build_encoder(), 3, decoder="mask").eval()
    decoder, images = net.decoder, torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        tokens = decoder.project(net.encoder(images)[:, 1:])
        tokens = torch.cat([tokens, decoder.classes], 1)
        for block in decoder.blocks:
            tokens = block(tokens)
        tokens = decoder.norm(tokens)[0]
        expected = torch.empty(6, 3)
        for i in range(6):
            patch = decoder.of_patch.weight @ tokens[i]
            for k in range(3):
                token = decoder.of_class.weight @ tokens[6 + k]
                expected[i, k] = patch @ token / patch.norm() / token.norm()
        mean, variance = expected.mean(1, keepdim=True), expected.var(1, False, keepdim=True)
        expected = (expected - mean) / (variance + 1e-5).sqrt()
        logits = net.coarse(images)[0].flatten(1).T
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-3)


def test_defaults_are_the_papers():
    decoder = Segmenter(build_encoder(width=192, depth=1), 11).decoder
    assert len(decoder.blocks) == 2
    assert {block.attn.num_heads for block in decoder.blocks} == {3}  # 192 / 64
    cfg = config.Config()
    assert (cfg.model.decoder, cfg.model.cells, cfg.training.optimizer) == ("mask", 1, "sgd")
    assert (cfg.training.scale, cfg.training.single_class) == ((0.5, 2.0), 0.75)


def test_pretrained_without_a_backbone_is_vit_tiny():
    net = model.build(config.Model(patch_size=8, width=32, depth=1, pretrained=True), 4, (32, 48))
    assert (net.encoder.name, net.encoder.n_heads) == ("vit_tiny_patch16_384", 3)
