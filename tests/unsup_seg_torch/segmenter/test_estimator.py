"""Segmenter as a scikit-learn estimator."""

import numpy as np
import pytest

from tests.unsup_seg_torch import synthetic
from unsup_seg_torch import PixelClassifier

QUICK = {"width": 32, "n_heads": 1, "depth": 2, "crop": (24, 32), "n_epochs": 12, "lr": 3e-3}


@pytest.fixture(scope="module")
def pairs():
    return [synthetic.labeled_image(i, (30, 40 + i)) for i in range(8)]


@pytest.fixture(scope="module")
def fitted(pairs):
    return PixelClassifier(batch_size=4, cells=2, **QUICK).fit(*zip(*pairs, strict=True))


def test_similar_image_gets_its_classes(fitted, pairs):
    image, truth = synthetic.labeled_image(50)
    labels = fitted.predict(image)
    is_labeled = truth != 255
    assert labels.shape == truth.shape and (labels == truth)[is_labeled].mean() > 0.8
    maps = fitted.predict_proba([image])[0]
    assert maps.shape == (3, 30, 40) and np.array_equal(maps.argmax(0), labels)
    np.testing.assert_allclose(maps.sum(0), 1, atol=1e-5)
    assert 0.3 < fitted.score(*zip(*pairs, strict=True)) <= 1
    assert fitted.classes_.tolist() == [0, 1, 2] and "loss" in fitted.history_[-1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda y: y[:-1], "y has 7 label maps, X has 8 images"),
        (lambda y: [y[0][:5], *y[1:]], r"label map 0 of y is \(5, 40\)"),
        (lambda y: [np.full_like(each, 255) for each in y], "y has nothing but 255"),
        (lambda y: [np.full_like(each, 3) for each in y], "y has only the class 3: expected two"),
        (
            lambda y: [np.where(each > 0, 255, 0) for each in y],  # masks
            r"y has only the class 0 besides 255.*\(foreground 255 as 1\)",
        ),
        (lambda y: [y[0] - 1.5, *y[1:]], "label map 0 of y has the label 253.5: expected integers"),
        (lambda y: [y[0], y[1] * np.nan, *y[2:]], "label map 1 of y has the label nan"),
        (lambda y: [y[0].astype(str), *y[1:]], "label map 0 of y is of type <U"),
        (lambda y: [y[0].astype(int) - 1, *y[1:]], "label map 0 of y has -1 to "),
        (lambda y: [y[0].astype(int) + 256, *y[1:]], "expected 0 to 255"),
    ],
)
def test_labels_that_do_not_fit_are_refused(pairs, change, reason):
    X, y = zip(*pairs, strict=True)
    with pytest.raises(ValueError, match=reason):
        PixelClassifier(**QUICK).fit(X, change(list(y)))


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"decoder": "unet"}, "decoder is 'unet': expected mask or linear"),
        ({"lr": float("nan")}, "training.lr"),
        ({"n_heads": 5}, "expected a multiple of its 5 heads"),
        ({"backbone": "resnet18"}, "not a plain vision transformer"),
    ],
)
def test_invalid_parameters_are_refused(pairs, parameters, reason):
    with pytest.raises(ValueError, match=reason):
        PixelClassifier(**QUICK | parameters).fit(*zip(*pairs, strict=True))
