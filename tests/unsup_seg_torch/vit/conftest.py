import pytest
import torch

from unsup_seg_torch.vit import encoder as encoders

SIZES = {"patch_size": 8, "width": 64, "depth": 2}


def build(size=(32, 32), **sizes):
    return encoders.build(None, size, **SIZES | sizes)


@pytest.fixture(scope="module")
def encoder():
    """A transformer whose weights are large enough for attention that is not uniform."""
    torch.manual_seed(0)
    encoder = encoders.build(None, (32, 32), patch_size=8, width=48, depth=3, n_heads=4).eval()
    for parameter in encoder.parameters():
        parameter.data.normal_(0, 0.2)
    return encoder
