"""DINO as a scikit-learn estimator."""

import numpy as np
import pytest
from sklearn.base import clone

from tests.unsup_seg_torch import synthetic
from unsup_seg_torch import DINOFeatures

QUICK = {"width": 32, "n_heads": 2, "depth": 2, "n_outputs": 32, "size": 16, "large": 16}
QUICK |= {"small": 8, "n_small": 2, "n_epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    images = []
    for i in range(12):
        image = random.normal(110, 8, (24, 32, 3))
        image[6:18, 10:24, i % 3] += 110
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return images


@pytest.fixture(scope="module")
def fitted(images):
    return DINOFeatures(**QUICK).fit(images)


def test_images_get_features_attention_and_segments(fitted, images):
    assert fitted.transform(images[:3]).shape == (3, 32)
    assert fitted.attention(images[0]).shape == (2, 24, 32)
    labels = fitted.predict(images[:2])
    assert [each.shape for each in labels] == [(24, 32)] * 2
    assert set(np.unique(labels)) <= {0, 1}
    three = clone(fitted).set_params(n_segments=3).fit(images).predict(images[0])
    assert three.shape == (24, 32) and len(np.unique(three)) <= 3


def test_same_seed_gives_the_same_features(fitted, images):
    again = DINOFeatures(**QUICK).fit(images)
    assert np.array_equal(again.transform(images[:2]), fitted.transform(images[:2]))


def test_folder_is_trained_on_and_0_epochs_keep_the_initial_weights(tmp_path, images):
    folder = synthetic.write_color_classes(tmp_path / "colors", n=3)
    assert DINOFeatures(**QUICK).fit(folder).transform(images[:1]).shape == (1, 32)
    untrained = DINOFeatures(**QUICK | {"n_epochs": 0}).fit(images[:1])
    assert untrained.history_ == [] and untrained.transform(images[:1]).shape == (1, 32)


@pytest.mark.parametrize(
    ("parameters", "X", "reason"),
    [
        ({"n_segments": 1}, None, "n_segments is 1"),
        ({"momentum": 1.0}, None, "training.momentum"),
        ({}, [], "X is empty"),
        ({}, "nowhere", "nowhere does not exist"),
        ({"weights": "nowhere.pth"}, None, "nowhere.pth does not exist"),
    ],
)
def test_invalid_parameters_and_images_are_refused(images, parameters, X, reason):
    with pytest.raises(ValueError, match=reason):
        DINOFeatures(**QUICK | parameters).fit(images if X is None else X)
