"""Two U-Nets with separable convolutions, for images of any size."""

import pytest
import torch

from unsup_seg_torch import WNet
from unsup_seg_torch.wnet import config, model


def n_parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_paper_width_has_twelve_million_parameters():
    # implementations that forget `groups` have over 70 million
    assert n_parameters(WNet(20, 64)) == 12_259_991


def test_half_has_nine_modules_of_two_convolutions_and_a_last_layer():
    encoder = WNet(20, 4).encoder
    modules = [module for module in encoder.modules() if isinstance(module, model.Module)]
    convolutions = [
        layer
        for layer in encoder.modules()
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    separable = [module for module in modules if isinstance(module[0], model.Separable)]
    assert (len(modules), len(convolutions), len(separable)) == (9, 18, 7)
    depthwise = [layer for layer in convolutions if layer.out_channels > 4]
    assert all(layer.groups == layer.in_channels for layer in depthwise)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (1, 1), (5, 70), (17, 16)])
def test_output_has_the_size_of_the_input(size):
    net = WNet(3, 4)
    probabilities, decoded = net(torch.rand(1, 3, *size))
    assert probabilities.shape == (1, 3, *size) and decoded.shape == (1, 3, *size)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, *size))


def test_single_small_image_has_gradients():
    net = WNet(3, 4).train()
    net(torch.rand(1, 3, 4, 4))[1].sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_padding_repeats_the_border():
    net = WNet(3, 4, depth=2).eval()
    images = torch.rand(1, 3, 16, 16)
    repeated = torch.cat([images, images[..., -1:, :]], 2)  # one more row: padded to 20
    padded = torch.cat([repeated, *[repeated[..., -1:, :]] * 3], 2)
    torch.testing.assert_close(net.encode(repeated), net.encode(padded)[..., :17, :])


def test_build_uses_depth_width_labels_and_dropout_of_the_config():
    net = model.build(config.Model(n_clusters=7, width=6, depth=2, dropout=0.5))
    assert net.encode(torch.rand(2, 3, 9, 9)).shape == (2, 7, 9, 9)
    assert len(net.encoder.down) == 2 and net.encoder.last.in_channels == 6
    dropout = [m for m in net.modules() if isinstance(m, torch.nn.Dropout2d)]
    assert len(dropout) == 2 * 3 and all(m.p == 0.5 for m in dropout)


def test_decoder_sees_the_labels_and_not_the_image():
    net = WNet(3, 4, depth=1).eval()
    probabilities = torch.rand(1, 3, 8, 8).softmax(1)
    torch.testing.assert_close(net.decode(probabilities), net.decode(probabilities.clone()))
    assert net.decoder.first[0].in_channels == 3
