"""W-Net as a scikit-learn estimator."""

import numpy as np
import pytest
from sklearn.base import clone

from tests.every_paper import warnings_of
from unsup_seg_torch import WNetSegmenter

QUICK = {"width": 4, "depth": 2, "n_epochs": 2, "crops": 2, "crop": 24, "crf_iterations": 2}


@pytest.fixture(scope="module")
def squares():
    """A dark square on a light background, in two images of different sizes."""
    images = []
    for h, w in ((40, 48), (36, 52)):
        image = np.full((h, w, 3), 210, np.uint8)
        image[10:26, 12:30] = (40, 60, 90)
        images.append(image)
    return images


@pytest.fixture(scope="module")
def fitted(squares):
    return WNetSegmenter(4, n_regions=2, **QUICK).fit(squares)


def test_square_is_a_region(fitted, squares):
    for labels, image in zip(fitted.labels_, squares, strict=True):
        inside = image[..., 0] < 100
        assert len(np.unique(labels)) == 2
        assert len(np.unique(labels[inside])) == len(np.unique(labels[~inside])) == 1


def test_one_image_gives_one_map_and_several_a_list(fitted, squares):
    labels = fitted.predict(squares[0])
    assert labels.shape == squares[0].shape[:2] and np.array_equal(labels, fitted.labels_[0])
    assert np.array_equal(fitted.predict([squares[0]])[0], labels)
    assert fitted.transform(squares[1]).max() < 4


@pytest.mark.parametrize("regions", ["labels", "felzenszwalb"])
def test_image_of_one_color_is_one_segment_and_warned_about_once(squares, regions):
    image, model = np.full((40, 48, 3), 77, np.uint8), WNetSegmenter(4, regions=regions, **QUICK)
    assert warnings_of(lambda: model.fit(image)) == [
        "the image has only one color: it has one segment"
    ]
    assert not model.labels_.any() and len(np.unique(model.transform(image))) == 1
    caught = warnings_of(lambda: model.fit([squares[0], image, image]))
    assert caught == ["2 of 3 images have only one color: they have one segment"]
    assert warnings_of(lambda: model.fit(squares)) == []


def test_floats_give_the_labels_of_uint8(fitted, squares):
    assert np.array_equal(fitted.predict(squares[0] / 255), fitted.predict(squares[0]))


def test_same_seed_gives_the_same_labels(squares):
    def labels(seed):
        model = WNetSegmenter(3, random_state=seed, **QUICK).fit(squares[0])
        return model.transform(squares[0])

    assert np.array_equal(labels(1), labels(1))


def test_clone_keeps_parameters_and_history_has_both_losses(fitted):
    assert clone(fitted).get_params() == fitted.get_params()
    assert {"soft_ncut", "reconstruction"} <= fitted.history_[-1].keys()


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"n_clusters": 0}, "model.n_clusters is 0"),
        ({"mode": "both"}, "mode is 'both'"),
        ({"regions": "slic"}, "regions is 'slic'"),
        ({"n_regions": 0}, "n_regions is 0"),
        ({"lr": float("nan")}, "training.lr"),
    ],
)
def test_invalid_parameters_are_refused(squares, parameters, reason):
    with pytest.raises(ValueError, match=reason):
        WNetSegmenter(**QUICK | parameters).fit(squares)


@pytest.mark.parametrize(
    "X", [np.zeros((4, 5)), np.zeros((4, 5, 3)) + 2.0, np.zeros((0, 5, 3), np.uint8), []]
)
def test_arrays_that_are_not_images_are_refused(X):
    with pytest.raises(ValueError, match="X"):
        WNetSegmenter(**QUICK).fit(X)
