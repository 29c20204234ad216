import numpy as np
import pytest
from sklearn.base import clone

import dfc_tf
from dfc_tf.estimator import DFC
from tests.every_paper import warnings_of

SMALL = {"width": 12, "n_clusters": 12, "n_iterations": 8}


def stripes(h=24, w=30, c=3, seed=0):
    image = np.zeros((h, w, c))
    image[:, w // 2 :] = 0.8
    noise = np.random.default_rng(seed).normal(0, 0.02, image.shape)
    return np.clip(image + noise, 0, 1)


def test_package_exports_dfc():
    assert dfc_tf.DFC is DFC


@pytest.mark.slow
def test_labels_have_the_size_of_the_image():
    for image in (stripes(), stripes()[..., 0], (255 * stripes()).astype(np.uint8), stripes(c=6)):
        labels = DFC(**SMALL).fit_predict(image)
        assert labels.shape == image.shape[:2] and labels.dtype.kind == "i"


def test_reduced_image_gets_labels_of_full_size():
    labels = DFC(**SMALL, max_side=10).fit_predict(stripes(25, 40))
    assert labels.shape == (25, 40)


def test_n_labels_separates_two_halves():
    model = DFC(2, random_state=0)
    labels = model.fit_predict(stripes())
    assert model.n_labels_ == 2 and len(model.history_) <= 50
    left, right = labels[4:-4, 4:11], labels[4:-4, 19:-4]
    assert len(np.unique(left)) == len(np.unique(right)) == 1 and left[0, 0] != right[0, 0]


@pytest.mark.slow
def test_labels_depend_on_random_state():
    labels = [
        DFC(**SMALL, regions="none", random_state=s).fit_predict(stripes()) for s in (0, 0, 1)
    ]
    assert np.array_equal(labels[0], labels[1]) and not np.array_equal(labels[0], labels[2])


@pytest.mark.parametrize("regions", ["none", "majority", "merge"])
def test_image_of_one_color_is_one_segment_and_warned_about_once(regions):
    image, model = np.full((24, 30, 3), 77, np.uint8), DFC(**SMALL, regions=regions)
    assert warnings_of(lambda: model.fit(image)) == [
        "the image has only one color: it has one segment"
    ]
    assert model.n_labels_ == 1 and not model.labels_.any() and np.isfinite(model.history_).all()
    assert len(np.unique(model.predict(image))) == 1
    assert warnings_of(lambda: model.fit(stripes())) == []


def test_predict_gives_the_same_channels_to_a_similar_image():
    model = DFC(**SMALL).fit(stripes())
    new = model.predict(stripes(seed=1))
    trained = model.predict(stripes())
    assert np.mean(new == trained) > 0.8


def test_scribbled_pixels_of_a_class_share_a_label():
    mask = np.full((24, 30), -1)
    mask[10, 2:8], mask[10, 20:28] = 4, 9  # any numbers
    model = DFC(n_iterations=60)
    labels = model.fit_predict(stripes(), scribbles=mask)
    assert len(np.unique(labels[mask == 4])) == len(np.unique(labels[mask == 9])) == 1


def test_clone_keeps_parameters():
    model = DFC(7, mu=3.0, optimizer="adam")
    assert clone(model).get_params() == model.get_params()


@pytest.mark.parametrize(
    ("options", "image", "reason"),
    [
        ({"n_iterations": 0}, stripes(), "n_iterations is 0: expected 1 or more"),
        ({"n_labels": 0}, stripes(), "n_labels is 0: expected 1 or more"),
        ({"lr": np.nan}, stripes(), "lr is nan: expected a number above 0"),
        ({"lr": -1}, stripes(), "lr is -1: expected a number above 0"),
        ({"min_area": 1.5}, stripes(), "min_area is 1.5: expected 0 or more, below 1"),
        ({}, np.zeros(5), r"X: shape \(5,\)"),
        ({}, np.full((3, 3), np.nan), "X: it contains NaN"),
        ({"lr": 1e30}, stripes(), "NaN or infinite at step"),
    ],
)
def test_invalid_values_raise_value_error(options, image, reason):
    with pytest.raises(ValueError, match=reason):
        DFC(**SMALL | options).fit(image)


def test_invalid_scribbles_raise_value_error():
    with pytest.raises(ValueError, match=r"scribbles are \(2, 2\)"):
        DFC(**SMALL).fit(stripes(), scribbles=np.zeros((2, 2), int))
    with pytest.raises(ValueError, match="mark nothing"):
        DFC(**SMALL).fit(stripes(), scribbles=np.full((24, 30), -1))
    one = np.full((24, 30), -1)
    one[3] = 255
    with pytest.raises(ValueError, match="mark a single class .*: expected two or more"):
        DFC(**SMALL).fit(stripes(), scribbles=one)


def test_predict_refuses_other_channels():
    model = DFC(**SMALL).fit(stripes())
    with pytest.raises(ValueError, match="X has 5 channels: expected 3"):
        model.predict(stripes(c=5))
