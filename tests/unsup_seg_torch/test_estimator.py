"""W-Net in the manner of scikit-learn."""

import numpy as np
import pytest
from sklearn.base import clone

from unsup_seg_torch import WNetSegmenter

QUICK = {"width": 4, "depth": 2, "n_epochs": 2, "crops": 2, "crop": 24, "crf_iterations": 2}


@pytest.fixture(scope="module")
def pictures():
    """A dark square on light ground, twice, of different sizes."""
    found = []
    for h, w in ((40, 48), (36, 52)):
        image = np.full((h, w, 3), 210, np.uint8)
        image[10:26, 12:30] = (40, 60, 90)
        found.append(image)
    return found


@pytest.fixture(scope="module")
def fitted(pictures):
    return WNetSegmenter(4, n_regions=2, **QUICK).fit(pictures)


def test_a_square_is_a_region(fitted, pictures):
    for labels, image in zip(fitted.labels_, pictures, strict=True):
        inside = image[..., 0] < 100
        assert len(np.unique(labels)) == 2
        assert len(np.unique(labels[inside])) == len(np.unique(labels[~inside])) == 1


def test_one_picture_has_one_map_and_several_a_list(fitted, pictures):
    one = fitted.predict(pictures[0])
    assert one.shape == pictures[0].shape[:2] and np.array_equal(one, fitted.labels_[0])
    assert np.array_equal(fitted.predict([pictures[0]])[0], one)
    assert fitted.transform(pictures[1]).max() < 4


def test_floats_are_the_bytes_they_stand_for(fitted, pictures):
    assert np.array_equal(fitted.predict(pictures[0] / 255), fitted.predict(pictures[0]))


def test_the_same_seed_gives_the_same_labels(pictures):
    def labels(seed):
        model = WNetSegmenter(3, random_state=seed, **QUICK).fit(pictures[0])
        return model.transform(pictures[0])

    assert np.array_equal(labels(1), labels(1))


def test_it_can_be_cloned_and_remembers_its_losses(fitted):
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
def test_wrong_parameters_are_refused(pictures, parameters, reason):
    with pytest.raises(ValueError, match=reason):
        WNetSegmenter(**QUICK | parameters).fit(pictures)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 5)), np.zeros((4, 5, 3)) + 2.0, np.zeros((0, 5, 3), np.uint8), []]
)
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(ValueError, match="X"):
        WNetSegmenter(**QUICK).fit(wrong)
