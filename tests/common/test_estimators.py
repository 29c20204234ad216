"""Argument checks of the estimators."""

from typing import Literal

import numpy as np
import pytest

from common.estimators import check_choice, check_images


@pytest.mark.parametrize(
    ("X", "shape", "dtype"),
    [
        (np.zeros((2, 4, 5), np.uint8), (2, 4, 5, 1), np.uint8),
        (np.zeros((2, 4, 5, 3), np.uint8), (2, 4, 5, 3), np.uint8),
        (np.ones((2, 4, 5)), (2, 4, 5, 1), np.float32),
        ([[[0.0, 1.0]]], (1, 1, 2, 1), np.float32),
    ],
)
def test_images_get_channel_axis_and_type(X, shape, dtype):
    images = check_images(X)
    assert (images.shape, images.dtype) == (shape, dtype)


@pytest.mark.parametrize(
    ("X", "reason"),
    [
        (np.zeros((4, 5), np.uint8), r"X is \(4, 5\): expected \(n, h, w\) or \(n, h, w, c\)$"),
        (np.zeros((0, 4, 5), np.uint8), r"X is \(0, 4, 5\)"),
        (np.zeros((1, 1, 4, 5, 3), np.uint8), r"X is \(1, 1, 4, 5, 3\)"),
        (np.zeros((2, 4, 5), np.int64), "X is int64: expected uint8, or floats from 0 to 1"),
        (np.full((2, 4, 5), 2.0), "values of 2 to 2: expected 0 to 1"),
        (np.full((2, 4, 5), -0.5), "values of -0.5 to -0.5"),
        (np.full((2, 4, 5), np.nan), "values of nan to nan"),
    ],
)
def test_invalid_images_raise_value_error(X, reason):
    with pytest.raises(ValueError, match=reason):
        check_images(X)


def test_number_of_channels_can_be_limited():
    for shape in ((2, 4, 5), (2, 4, 5, 1), (2, 4, 5, 3)):
        assert check_images(np.zeros(shape, np.uint8), (1, 3)).shape[:3] == (2, 4, 5)
    with pytest.raises(ValueError, match=r"\(n, h, w, c\) with 1 or 3 channels"):
        check_images(np.zeros((2, 4, 5, 2), np.uint8), (1, 3))


def test_unknown_choice_raises_value_error():
    check_choice("mode", "a", Literal["a", "b"])
    with pytest.raises(ValueError, match="mode is 'c': expected one of a, b"):
        check_choice("mode", "c", Literal["a", "b"])
