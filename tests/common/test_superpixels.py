import numpy as np

from common.bsds import superpixels


def halves(n_channels, noise=0.02):
    """Two halves of gray 0.2 and 0.8 with noise."""
    image = np.full((20, 30, n_channels), 0.2)
    image[:, 15:] = 0.8
    return image + np.random.default_rng(0).normal(0, noise, image.shape)


def test_smooth_removes_texture_and_keeps_edges():
    image = halves(2)
    smoothed = superpixels.smooth(image)
    assert smoothed[:, :14].std() < image[:, :14].std() / 3
    assert (smoothed[:, 16] - smoothed[:, 13]).min() > 0.5


def test_smooth_converts_rgb_to_lab():
    gray = np.full((8, 8, 3), 119, np.uint8)
    lab = superpixels.smooth(gray)
    assert np.allclose(lab, superpixels.smooth(gray / 255))
    assert np.allclose(lab[..., 0], 0.5, atol=0.01) and np.allclose(lab[..., 1:], 0, atol=0.01)


def test_felzenszwalb_separates_halves_of_any_channels(recwarn):
    for n_channels in (1, 2, 3, 7):
        labels = superpixels.felzenszwalb(halves(n_channels, noise=0), 100)
        assert labels.shape == (20, 30) and labels.dtype == np.int64
        assert labels[5, 5] != labels[5, 25]
    assert not recwarn.list


def test_felzenszwalb_segments_have_min_pixels():
    image = np.random.default_rng(0).random((30, 30, 3))
    sizes = [
        np.bincount(superpixels.felzenszwalb(image, 1, min_pixels=n).ravel()).min() for n in (5, 50)
    ]
    assert 5 <= sizes[0] < 50 <= sizes[1]
