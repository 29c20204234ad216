"""Sliding windows, scales and mirrored images against loops and means."""

import numpy as np
import torch
from torch.nn import functional as F

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
    assert sliding_window.anchors(40, 40, 8) == [0]
    # the authors' Pascal Context: 480 wide windows, 320 apart
    assert sliding_window.anchors(1000, 480, 320) == [0, 320, 520]


def test_image_smaller_than_a_window_is_enlarged_to_contain_it():
    """As the authors: the shorter side becomes the window's, the longer is rounded down."""
    square = (512, 512)
    for size, expected in [
        ((300, 400), (512, 682)),  # 400 / 300 * 512 = 682.67
        ((400, 300), (682, 512)),
        ((512, 300), (873, 512)),  # one side is large enough; 512 / 300 * 512 = 873.8
        ((256, 256), square),
        (square, square),
        ((512, 700), (512, 700)),
        ((1000, 513), (1000, 513)),
        ((1, 10**6), (512, 10**6)),  # not (512, 512 * 10**6)
        ((3, 1000), (512, 16 * 512)),
        ((1000, 3), (16 * 512, 512)),
    ]:
        assert sliding_window.fit_window(size, square) == expected
    # a window that is not square: the side with the larger factor decides
    assert sliding_window.fit_window((10, 30), (16, 24)) == (16, 48)
    assert sliding_window.fit_window((10, 10), (16, 24)) == (24, 24)
    assert sliding_window.fit_window((135, 180), (180, 240)) == (180, 240)


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


def test_small_image_is_seen_in_enlarged_windows_and_reduced_again():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    seen = []

    class Recorder(PositionNet):
        def forward(self, images):
            seen.extend(images)
            return super().forward(images)

    cfg = make_config({"crop": (32, 32)}, stride=12)
    probabilities = sliding_window.probabilities(Recorder(), image, cfg)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    large = F.interpolate(pixels[None], (32, 48), mode="bilinear")[0]
    lefts = [0, 12, 16]  # 32 rows and 48 columns in windows of 32 x 32
    assert len(seen) == 3
    for window, left in zip(seen, lefts, strict=True):
        torch.testing.assert_close(window, large[:, :, left : left + 32])
    columns, count = torch.zeros(48), torch.zeros(48)
    for left in lefts:
        columns[left : left + 32] += torch.arange(32)
        count[left : left + 32] += 1
    logits = torch.stack([(columns / count).expand(32, 48), 10 * large[0]])
    expected = F.interpolate(logits[None], (20, 30), mode="bilinear")[0].softmax(0)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


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
