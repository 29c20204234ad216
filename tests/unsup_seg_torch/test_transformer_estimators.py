"""Segmenter and DINO in the manner of scikit-learn."""

import numpy as np
import pytest
from sklearn.base import clone

from tests.unsup_seg_torch import transformers
from unsup_seg_torch import DINOFeatures, PixelClassifier

SEGMENTER = {"width": 32, "n_heads": 1, "depth": 2, "crop": (24, 32), "n_epochs": 12, "lr": 3e-3}
DINO = {"width": 32, "n_heads": 2, "depth": 2, "n_outputs": 32, "size": 16, "large": 16, "small": 8}
DINO |= {"n_small": 2, "n_epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def pairs():
    return [transformers.scene(i, (30, 40 + i)) for i in range(8)]


@pytest.fixture(scope="module")
def pixels(pairs):
    return PixelClassifier(batch_size=4, cells=2, **SEGMENTER).fit(*zip(*pairs, strict=True))


def test_pixels_are_labelled_as_they_were_in_pictures_like_them(pixels, pairs):
    image, truth = transformers.scene(50)
    found = pixels.predict(image)
    known = truth != 255
    assert found.shape == truth.shape and (found == truth)[known].mean() > 0.8
    maps = pixels.predict_proba([image])[0]
    assert maps.shape == (3, 30, 40) and np.array_equal(maps.argmax(0), found)
    np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)
    assert 0.3 < pixels.score(*zip(*pairs, strict=True)) <= 1
    assert pixels.classes_.tolist() == [0, 1, 2] and "loss" in pixels.history_[-1]


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (lambda y: y[:-1], "y has 7 maps, X 8 pictures"),
        (lambda y: [y[0][:5], *y[1:]], r"map 0 of y is \(5, 40\)"),
        (lambda y: [y[0] - 1.5, *y[1:]], "map 0 of y is no map of integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(pairs, labels, reason):
    X, y = zip(*pairs, strict=True)
    with pytest.raises(ValueError, match=reason):
        PixelClassifier(**SEGMENTER).fit(X, labels(list(y)))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"decoder": "unet"}, "decoder is 'unet': expected mask or linear"),
        ({"lr": float("nan")}, "training.lr"),
        ({"n_heads": 5}, "5 heads do not divide"),
        ({"backbone": "resnet18"}, "no plain vision transformer"),
    ],
)
def test_wrong_parameters_are_refused(pairs, options, reason):
    with pytest.raises(ValueError, match=reason):
        PixelClassifier(**SEGMENTER | options).fit(*zip(*pairs, strict=True))


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    found = []
    for i in range(12):
        image = random.normal(110, 8, (24, 32, 3))
        image[6:18, 10:24, i % 3] += 110
        found.append(np.clip(image, 0, 255).astype(np.uint8))
    return found


@pytest.fixture(scope="module")
def features(pictures):
    return DINOFeatures(**DINO).fit(pictures)


def test_pictures_have_features_maps_and_segments(features, pictures):
    assert features.transform(pictures[:3]).shape == (3, 32)
    assert features.attention(pictures[0]).shape == (2, 24, 32)
    labels = features.predict(pictures[:2])
    assert [each.shape for each in labels] == [(24, 32)] * 2
    assert set(np.unique(labels)) <= {0, 1}
    more = clone(features).set_params(n_segments=3).fit(pictures).predict(pictures[0])
    assert more.shape == (24, 32) and len(np.unique(more)) <= 3


def test_the_same_seed_gives_the_same_features(features, pictures):
    again = DINOFeatures(**DINO).fit(pictures)
    assert np.array_equal(again.transform(pictures[:2]), features.transform(pictures[:2]))


def test_a_folder_is_learned_from_and_untrained_weights_are_used_as_they_are(tmp_path, pictures):
    folder = transformers.write_photos(tmp_path / "colours", n=3)
    assert DINOFeatures(**DINO).fit(folder).transform(pictures[:1]).shape == (1, 32)
    given = DINOFeatures(**DINO | {"n_epochs": 0}).fit(pictures[:1])
    assert given.history_ == [] and given.transform(pictures[:1]).shape == (1, 32)


@pytest.mark.parametrize(
    ("options", "X", "reason"),
    [
        ({"n_segments": 1}, None, "n_segments is 1"),
        ({"momentum": 1.0}, None, "training.momentum"),
        ({}, [], "X is empty"),
        ({}, "nowhere", "nowhere is absent"),
        ({"weights": "nowhere.pth"}, None, "nowhere.pth is absent"),
    ],
)
def test_wrong_use_is_refused(pictures, options, X, reason):
    with pytest.raises(ValueError, match=reason):
        DINOFeatures(**DINO | options).fit(pictures if X is None else X)
