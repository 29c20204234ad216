from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import images
from tests.image_files import COLOR, GRAY


def test_resize_to_an_integer_keeps_the_center():
    # columns 0 to 5; the shorter side is 2: columns 2 and 3 remain
    wide = np.tile(np.arange(6, dtype=np.uint8) * 10, (2, 1))
    assert np.array_equal(images.resize(wide, 2), [[20, 30], [20, 30]])
    assert np.array_equal(images.resize(wide[..., None], 2)[..., 0], [[20, 30], [20, 30]])


def test_resize_to_a_pair_is_height_then_width():
    assert images.resize(COLOR, (5, 4)).shape == (5, 4, 3)


def test_resize_is_antialiased():
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    assert abs(images.resize(stripes, 4).astype(int) - 100).max() <= 10


def test_fit_within_keeps_proportions_and_never_enlarges():
    assert images.fit_within((100, 50), 20) == (20, 10)
    assert images.fit_within((50, 100), 20) == (10, 20)
    assert images.fit_within((10, 5), 20) == images.fit_within((10, 5), None) == (10, 5)
    assert images.fit_within((1000, 1), 10) == (10, 1)  # at least one pixel


def test_shrink_resizes_or_returns_the_image():
    assert images.shrink(np.zeros((40, 20, 3), np.uint8), 10).shape == (10, 5, 3)
    assert images.shrink(np.zeros((40, 20), np.uint8), 10).shape == (10, 5)
    assert images.shrink(COLOR, 3) is COLOR and images.shrink(COLOR, None) is COLOR


def test_resize_labels_takes_the_nearest_pixel():
    labels = np.array([[1, 2], [3, 4]])
    assert images.resize_labels(labels, (4, 2)).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    # centers of 3 output pixels are at 1/3, 1 and 5/3 of 2 columns: in columns 0, 1 and 1
    assert images.resize_labels(labels, (1, 3)).tolist() == [[3, 4, 4]]
    assert np.array_equal(images.resize_labels(labels, (2, 2)), labels)


def test_to_channels_converts_like_pillow():
    gray, rgb = GRAY[None, ..., None], COLOR[None]
    assert images.to_channels(gray, 1) is gray and images.to_channels(rgb, 3) is rgb
    assert np.array_equal(images.to_channels(gray, 3)[0], np.stack([GRAY] * 3, axis=-1))
    converted = images.to_channels(rgb, 1)
    assert converted.dtype == np.uint8 and converted.shape == (1, 2, 3, 1)
    # 0.299 * 100 + 0.587 * 50 + 0.114 * 10 = 60.39
    assert images.to_channels(np.array([[[[100, 50, 10]]]], np.uint8), 1).tolist() == [[[[60]]]]
    pillow = np.asarray(Image.fromarray(COLOR).convert("L"))
    assert np.abs(converted[0, ..., 0].astype(int) - pillow).max() <= 1


def test_unique_names_are_valid_and_differ_without_case():
    paths = ["x/a.png", "y/A.jpg", "z/a_1.png", "a.gif", "b c/ü?.png", "\n.png", "n" * 200]
    names = images.unique_names(map(Path, paths))
    assert names[:2] == ["a", "A_1"] and names[4:6] == ["ü_", "_"]
    assert len({name.lower() for name in names}) == len(paths)
    assert len(names[6]) == 80


def test_as_image_list_accepts_one_or_several_images():
    (single,) = images.as_image_list(COLOR)
    assert np.array_equal(single, COLOR)
    stacked = images.as_image_list(np.stack([COLOR, COLOR]))
    mixed = images.as_image_list([COLOR / 255, np.zeros((4, 4, 3), np.float32)])
    assert len(stacked) == len(mixed) == 2
    assert mixed[0].dtype == np.uint8 and np.array_equal(mixed[0], COLOR)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "X is empty"),
        (GRAY, r"image 0 of X is \(3,\): expected \(h, w, 3\)"),
        ([COLOR, GRAY], r"image 1 of X is \(2, 3\)"),
        ([np.zeros((0, 4, 3), np.uint8)], r"image 0 of X is \(0, 4, 3\)"),
        (COLOR.astype(np.int64), "image 0 of X is int64: expected uint8, or floats"),
        (COLOR.astype(float), "image 0 of X is float64: expected uint8, or floats"),
        (np.full((2, 2, 3), np.nan), "image 0 of X is float64"),
    ],
)
def test_as_image_list_refuses_other_arrays(X, message):
    with pytest.raises(ValueError, match=message):
        images.as_image_list(X)


def test_to_uint8_clips_and_rounds_floats_only():
    assert images.to_uint8([-1, 0, 0.5, 1, 2, np.nan]).tolist() == [0, 0, 128, 255, 255, 0]
    assert images.to_uint8(np.array([0, 1], np.uint8)).tolist() == [0, 1]
