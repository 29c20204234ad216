import pytest
import torch
from torch import nn

from dti_torch import encoder


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def n_parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("name", "n_features", "expected"),
    [
        # He et al. 2016, table 6: 0.27 M, 0.46 M, 0.66 M, 0.85 M, 1.7 M with a classifier
        ("resnet20", 64, 268_784),
        ("resnet32", 64, 463_216),
        ("resnet44", 64, 657_648),
        ("resnet56", 64, 852_080),
        ("resnet110", 64, 1_727_024),
        # torchvision: 11.7 M, 21.8 M, 25.6 M minus 1000 (f + 1) of the classifier
        ("resnet18", 512, 11_689_512 - 513_000),
        ("resnet34", 512, 21_797_672 - 513_000),
        ("resnet50", 2048, 25_557_032 - 2_049_000),
        # at 14 pixels: 3x3 convolutions 1-32-64-64 and norms, then 64 x 4 x 4 to 128
        ("strided", 128, 9 * (32 + 2048 + 4096) + 2 * 160 + 1024 * 128 + 128),
    ],
)
def test_encoder_has_the_published_size(name, n_features, expected):
    net = encoder.build(name, (1, 28, 28)).eval()
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, n_features)
    assert n_parameters(net) == expected


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 17, 30), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", ["strided", "resnet20", "resnet18"])
def test_encoder_accepts_any_size_and_channels(name, shape):
    features = encoder.build(name, shape).eval()(torch.rand(2, *shape))
    assert features.ndim == 2 and features.isfinite().all()


def test_downsampling_shortcut_subsamples_and_pads_channels():
    block = encoder.Block(16, 32).eval()
    nn.init.zeros_(block.norm2.weight)  # only the shortcut is left
    images = torch.rand(2, 16, 9, 9)
    out = block(images)
    torch.testing.assert_close(out[:, 8:24], images[:, :, ::2, ::2])
    assert not out[:, :8].any() and not out[:, 24:].any()


def test_gray_image_is_encoded_as_rgb():
    net = encoder.build("resnet18", (1, 32, 32)).eval()
    gray = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(net(gray), net(gray.expand(-1, 3, -1, -1)))


def test_memory_format_does_not_change_the_features():
    net, images = encoder.build("resnet20", (3, 16, 16)).eval(), torch.rand(4, 3, 16, 16)
    expected = net(images)
    net.to(memory_format=torch.channels_last)
    features = net(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
