"""Argument checks of the estimators."""

from typing import Literal

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from common.estimators import check_choice, check_images, check_labels, warn


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


@pytest.mark.parametrize(
    ("y", "labels", "kind"),
    [
        ([3, -1, 3], [3, -1, 3], "i"),
        (np.array([0, 1, 255], np.uint8), [0, 1, 255], "u"),
        ([True, False, True], [True, False, True], "b"),
        ([1.0, 2.0, -3.0], [1, 2, -3], "i"),
        (["a", "b", ""], ["a", "b", ""], "U"),
        (np.array(["a", "b", "c"], object), ["a", "b", "c"], "U"),
    ],
)
def test_labels_are_integers_or_strings(y, labels, kind):
    checked = check_labels(y, 3, n_classes=2)
    assert checked.tolist() == labels and checked.dtype.kind == kind


INVALID_LABELS = [
    ([0, 1], r"X has 3 images, y labels of shape \(2,\): expected \(3,\)"),
    ([[0], [1], [2]], r"y labels of shape \(3, 1\)"),
    (1, r"y labels of shape \(\)"),
    ([0, 1, np.nan], "y has the label nan: expected integers"),
    ([0, 1, np.inf], "y has the label inf"),
    ([0, 1, 2.5], "y has the label 2.5: expected integers"),
    ([0, 1, 1e300], r"y has the label 1e\+300"),
    ([0, 1, None], "y is of type object: expected integers"),
    (np.array([0, 1, "a"], object), "y is of type object"),
    (np.array(["a", "b", np.nan], object), "y is of type object"),
    ([0, 1, 2j], "y is of type complex128"),
    (np.array([1, 2, 3], "datetime64[D]"), "y is of type datetime64"),
    ([7, 7, 7], "the number of classes in y is 1: expected 2 or more"),
]


@pytest.mark.parametrize(("y", "reason"), INVALID_LABELS)
def test_invalid_labels_raise_value_error(y, reason):
    with pytest.raises(ValueError, match=reason):
        check_labels(y, 3, n_classes=2)


def test_warning_is_given_once_to_the_caller_of_fit():
    def fit(message):
        warn(message)

    with pytest.warns(ConvergenceWarning, match="all equal") as caught:
        fit("all equal")
        fit("")
    assert len(caught) == 1 and caught[0].filename == __file__


def test_unknown_choice_raises_value_error():
    check_choice("mode", "a", Literal["a", "b"])
    with pytest.raises(ValueError, match="mode is 'c': expected one of a, b"):
        check_choice("mode", "c", Literal["a", "b"])
