"""DeepCluster as a scikit-learn estimator, on a few handwritten digits and a folder."""

import inspect

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_clusterer
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import (
    check_get_params_invariance,
    check_mixin_order,
    check_no_attributes_set_in_init,
    check_set_params,
)

from deepcluster_torch import DeepCluster
from tests.every_paper import noise_images, warnings_of


@pytest.fixture(scope="module")
def digits():
    """80 images (n, 8, 8) float64 in [0, 1]"""
    return load_digits().images[:80] / 16


def quick(n_clusters=3, **parameters):
    options = {"model.width": 4, "model.heads": (6,), "model.projection": 8, "model.embedding": 8}
    defaults = {"n_epochs": 1, "batch_size": 40, "random_state": 0, "options": options}
    return DeepCluster(n_clusters, **defaults | parameters)


@pytest.fixture(scope="module")
def fitted(digits):
    return quick().fit(digits)


def test_labels_equal_predictions_and_embeddings_have_length_1(fitted, digits):
    assert fitted.labels_.shape == (80,) and set(fitted.labels_) == {0, 1, 2}
    np.testing.assert_array_equal(fitted.predict(digits), fitted.labels_)
    embeddings = fitted.transform(digits)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    assert fitted.cluster_centers_.shape == (3, embeddings.shape[1])
    assert (fitted.mode_, fitted.n_iter_) == ("v2", 2)


def test_fit_and_predict_on_a_folder(photos, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    model = quick(size=12).fit(photos)
    assert len(model.paths_) == len(model.labels_) == 24
    chosen = [i for i, path in enumerate(model.paths_) if "/red/" in path]
    np.testing.assert_array_equal(model.predict(photos / "red"), model.labels_[chosen])


def test_equal_random_states_give_equal_labels(fitted, digits):
    np.testing.assert_array_equal(clone(fitted).fit(digits).labels_, fitted.labels_)


@pytest.mark.parametrize(
    "options",
    [
        {"model.mode": "v1", "training.warm_start": True},
        {"model.mode": "v1", "model.clustering": "pic"},
        {"model.mode": "v2", "training.warm_start": True},
    ],
    ids=["v1", "pic", "v2"],
)
@pytest.mark.parametrize("n_distinct", [1, 3, 30])
def test_few_distinct_images_are_warned_about_once(caplog, options, n_distinct):
    images = noise_images(60, n_distinct, 8, 8)
    own = {"model.width": 4, "model.projection": 8, "model.embedding": 8}
    model = quick(5, n_epochs=3, options=own | options)
    caught = warnings_of(lambda: model.fit(images))
    assert len(caught) == (n_distinct < 5) and all("images are" in message for message in caught)
    logged = [record for record in caplog.records if record.levelname == "WARNING"]
    assert logged == [] or n_distinct == 30
    assert np.isfinite(model.transform(images)).all() and np.isfinite(model.cluster_centers_).all()
    assert model.predict(images).tolist() == model.labels_.tolist()


def test_fit_keeps_the_global_random_state(digits):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    quick().fit(digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_groups_are_merged_clusters(digits):
    model = quick(10, n_groups=4).fit(digits)
    assert set(model.labels_) <= set(range(4)) and len(model.cluster_centers_) == 10


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((5, 64)), r"X is \(5, 64\): expected \(n, h, w\)"),
        (np.zeros((5, 8, 8, 2)), "1 or 3 channels"),
        (np.zeros((5, 8, 8), int), "X is int64: expected uint8"),
        (np.full((5, 8, 8), np.nan), "X has values of nan to nan: expected 0 to 1"),
        (np.full((5, 8, 8), 16.0), "X has values of 16 to 16: expected 0 to 1"),
        (np.zeros((2, 8, 8)), "model.n_clusters is 3, but there are only 2 images"),
        ("nowhere", "nowhere does not exist"),
    ],
)
def test_anything_but_images_is_refused(images, reason):
    with pytest.raises(ValueError, match=reason):
        quick().fit(images)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n_clusters": 0}, "model.n_clusters is 0: expected 1 or more"),
        ({"mode": "v3"}, "model.mode: expected one of auto, v1, v2, frozen"),
        ({"options": {"training.lrr": 1}}, "no key training.lrr; did you mean training.lr"),
        ({"arch": "resnet1"}, "resnet1"),
        ({"mode": "frozen"}, "set model.weights to a file"),
    ],
)
def test_wrong_parameter_is_refused_by_name_in_fit(digits, options, reason):
    with pytest.raises(ValueError, match=reason):
        quick(**options).fit(digits)


def test_images_of_another_shape_than_in_fit_are_refused(fitted):
    with pytest.raises(ValueError, match=r"X has images \(9, 8, 1\): expected \(8, 8, 1\)"):
        fitted.predict(np.zeros((2, 9, 8)))


@pytest.mark.parametrize(
    "check",
    [
        check_no_attributes_set_in_init,
        check_get_params_invariance,
        check_set_params,
        check_mixin_order,
    ],
)
def test_scikit_learn_checks_without_fit_pass(check):
    check("DeepCluster", DeepCluster())


def test_init_only_stores_parameters():
    values = {name: object() for name in inspect.signature(DeepCluster).parameters}
    assert vars(DeepCluster(**values)) == values and is_clusterer(DeepCluster())


@pytest.mark.parametrize("method", ["predict", "transform"])
def test_methods_before_fit_raise(method, digits):
    with pytest.raises(NotFittedError):
        getattr(DeepCluster(), method)(digits)


def test_small_datasets_are_trained_for_more_epochs():
    # 1500 steps: 128 images are one batch per epoch, 100,000 are 782
    assert DeepCluster()._config(0, 128).training.n_epochs == 1500
    assert DeepCluster()._config(0, 100_000).training.n_epochs == 20
