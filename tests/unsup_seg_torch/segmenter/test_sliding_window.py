"""Sliding windows, scales and mirrored images against loops and means."""

import numpy as np
import torch

from unsup_seg_torch import Segmenter
from unsup_seg_torch.segmenter import config, sliding_window
from unsup_seg_torch.vit import encoder


def build_encoder():
    torch.manual_seed(0)
    return encoder.build(None, (16, 24), patch_size=8, width=64, depth=1)


def make_config(dataset=None, **model):
    return config.Config(
        dataset=config.Dataset(**{"crop": (16, 24)} | (dataset or {})),
        model=config.Model(**{"patch_size": 8, "width": 32, "depth": 1} | model),
    )


def test_windows_cover_the_side_and_the_last_ends_with_it():
    assert sliding_window.anchors(100, 40, 30) == [0, 30, 60]
    assert sliding_window.anchors(101, 40, 30) == [0, 30, 60, 61]
    assert sliding_window.anchors(40, 40, 8) == sliding_window.anchors(20, 40, 8) == [0]


class PositionNet(torch.nn.Module):
    """Its logits are the column of a pixel in its window, and 10 times its brightness."""

    n_classes = 2

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        columns = torch.arange(images.shape[3]).expand(len(images), images.shape[2], -1).float()
        return torch.stack([columns, 10 * images[:, 0]], 1)


def test_logits_are_means_over_the_windows_that_contain_a_pixel():
    image = torch.rand(3, 7, 11)
    logits = sliding_window.logits(PositionNet(), image, (4, 5), stride=3)
    total, count = torch.zeros(7, 11), torch.zeros(7, 11)
    for y in sliding_window.anchors(7, 4, 3):
        for x in sliding_window.anchors(11, 5, 3):
            for i in range(4):
                for j in range(5):
                    total[y + i, x + j] += j
                    count[y + i, x + j] += 1
    torch.testing.assert_close(logits[0], total / count)
    torch.testing.assert_close(logits[1], 10 * image[0])


def test_probabilities_are_means_over_scales_and_mirrored_images():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    net = Segmenter(build_encoder(), 3, decoder="linear").eval()

    def probabilities(pixels=image, **model):
        return sliding_window.probabilities(net, pixels, make_config(**model))

    plain, mirrored = probabilities(), probabilities(image[:, ::-1].copy())
    torch.testing.assert_close(
        probabilities(flip=True), (plain + mirrored[..., ::-1]) / 2, atol=1e-6, rtol=1e-5
    )
    both = probabilities(scales=(1.0, 2.0))
    expected = (plain + probabilities(scales=(2.0,))) / 2
    np.testing.assert_allclose(both, expected, atol=1e-6)
    np.testing.assert_allclose(both.sum(0), 1, atol=1e-5)
    assert probabilities(crf_iterations=1).shape == (3, 16, 24)


def test_probabilities_have_the_size_of_the_image():
    net = Segmenter(build_encoder(), 3).eval()
    image = np.zeros((40, 60, 3), np.uint8)
    cfg = make_config(dataset={"short_side": 16})
    assert sliding_window.probabilities(net, image, cfg).shape == (3, 40, 60)
