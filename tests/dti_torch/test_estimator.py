"""DTIKMeans and DTIGMM follow scikit-learn's conventions; on a few handwritten digits."""

import copy
import inspect

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin, clone, is_clusterer
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import (
    check_estimator_repr,
    check_get_params_invariance,
    check_mixin_order,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)

from common import metrics
from dti_torch import DTIGMM, DTIKMeans
from tests.every_paper import noise_images, warnings_of

BOTH = [DTIKMeans, DTIGMM]
both = pytest.mark.parametrize("kind", BOTH)


@pytest.fixture(scope="module")
def digits():
    """150 images (n, 8, 8) float64 in [0, 1] of 0, 1 and 6, and their labels."""
    images, labels = load_digits(return_X_y=True)
    chosen = np.flatnonzero(np.isin(labels, (0, 1, 6)))[:150]
    return images[chosen].reshape(-1, 8, 8) / 16, labels[chosen]


@pytest.fixture(scope="module", params=BOTH)
def fitted(request, digits):
    return request.param(3, init="kmeans", n_epochs=30, random_state=0).fit(digits[0])


def quick(kind, n_clusters=3, **options):
    return kind(n_clusters, **{"n_epochs": 2, "batch_size": 32, "random_state": 0} | options)


def assert_same_fit(a, b):
    np.testing.assert_array_equal(a.labels_, b.labels_)
    np.testing.assert_array_equal(a.cluster_centers_, b.cluster_centers_)
    assert a.loss_ == b.loss_


# ---- results of fit


def test_fit_separates_three_digits(fitted, digits):
    images, labels = digits
    assert metrics.clustering_accuracy(labels, fitted.labels_) > 0.95
    assert fitted.labels_.shape == (150,) and fitted.cluster_centers_.shape == (3, 8, 8)
    assert fitted.n_iter_ == 30 * 3  # batches of 64, 64 and 22


def test_labels_equal_predict_and_nearest_of_transform(fitted, digits):
    images, _ = digits
    distances = fitted.transform(images)
    assert distances.shape == (150, 3)
    np.testing.assert_array_equal(fitted.labels_, distances.argmin(1))
    np.testing.assert_array_equal(fitted.labels_, fitted.predict(images))


def test_score_is_the_negative_loss_and_higher_on_training_images(fitted, digits):
    images, _ = digits
    assert fitted.score(images) == -fitted.loss_
    assert fitted.score(images) > fitted.score(images[:, ::-1])


def test_kmeans_loss_is_the_mean_distance_to_the_nearest(digits):
    model = quick(DTIKMeans).fit(digits[0])
    assert model.loss_ == pytest.approx(model.transform(digits[0]).min(1).mean())
    assert 0 < model.loss_ < 0.2


def test_predict_proba_includes_the_mixing_weights(digits):
    images, _ = digits
    model = quick(DTIGMM).fit(images)
    posterior, distances = model.predict_proba(images), model.transform(images).astype(float)
    np.testing.assert_allclose(posterior.sum(1), 1)
    np.testing.assert_array_equal(posterior.argmax(1), model.predict(images))
    # exp(-distance) is weight times likelihood, the loss -log of its sum
    joint = np.exp(-distances)
    np.testing.assert_allclose(posterior, joint / joint.sum(1, keepdims=True))
    assert model.loss_ == pytest.approx(-np.log(joint.sum(1)).mean())


def test_identity_only_transform_is_the_pixel_distance(digits):
    images, _ = digits
    model = quick(DTIKMeans, transformations=["identity"]).fit(images)
    squared = np.square(images[:, None] - model.cluster_centers_).mean((2, 3))
    np.testing.assert_allclose(model.transform(images), squared, rtol=1e-4)  # float32


# ---- kinds of images


@both
def test_uint8_and_float_images_give_the_same_fit(kind, digits):
    bytes_ = np.rint(digits[0] * 255).astype(np.uint8)
    floats = bytes_.astype(np.float32) / 255
    assert_same_fit(quick(kind).fit(bytes_), quick(kind).fit(floats))


def test_float_images_are_not_quantized():
    # all within a third of a uint8 step
    images = np.random.default_rng(0).uniform(0.5, 0.5 + 1 / 765, (40, 6, 6))
    model = quick(DTIKMeans, transformations=["identity"]).fit(images)
    assert 0 < model.loss_ < (1 / 765) ** 2
    assert len(np.unique(model.cluster_centers_)) > 10


@pytest.mark.parametrize("shape", [(20, 7, 9), (20, 7, 9, 1), (20, 7, 9, 3), (20, 30, 16, 3)])
def test_cluster_centers_have_the_shape_of_the_images(shape):
    images = np.random.default_rng(0).random(shape)
    model = quick(DTIKMeans, transformations=("identity", "color", "projective")).fit(images)
    assert model.cluster_centers_.shape == (3, *shape[1:])
    assert model.predict(images[:1]).shape == (1,)


def test_images_may_be_read_only_and_in_any_memory_order(digits):
    flipped = digits[0][::-1, :, ::-1]
    flipped.flags.writeable = False
    assert_same_fit(quick(DTIKMeans).fit(flipped), quick(DTIKMeans).fit(flipped.copy()))
    as_bytes = np.asfortranarray(np.rint(digits[0] * 255).astype(np.uint8))
    as_bytes.flags.writeable = False
    quick(DTIKMeans).fit(as_bytes).predict(as_bytes)


def test_fit_neither_changes_nor_keeps_the_images(digits):
    images = np.rint(digits[0] * 255).astype(np.uint8)
    before = images.copy()
    model = quick(DTIKMeans).fit(images)
    np.testing.assert_array_equal(images, before)
    distances = model.transform(images)
    images[:] = 0
    model.cluster_centers_[:] = 0
    np.testing.assert_array_equal(model.transform(before), distances)


@both
@pytest.mark.parametrize("n_clusters", [1, 3])
def test_identical_images_give_finite_results(kind, n_clusters):
    images = np.full((10, 8, 8), 0.25)
    model = quick(kind, n_clusters)
    assert len(warnings_of(lambda: model.fit(images))) == 1
    assert np.isfinite(model.transform(images)).all() and np.isfinite(model.loss_)
    np.testing.assert_allclose(model.cluster_centers_, 0.25, atol=0.05)


@pytest.mark.parametrize(("kind", "init"), [(DTIKMeans, "sample"), (DTIGMM, "kmeans")])
@pytest.mark.parametrize("n_distinct", [1, 3, 30])
def test_few_distinct_images_are_warned_about_once(kind, init, n_distinct):
    images, model = noise_images(60, n_distinct, 8, 8), quick(kind, 5, init=init, n_init=2)
    caught = warnings_of(lambda: model.fit(images))
    assert len(caught) == (n_distinct < 5) and all("images are" in message for message in caught)
    assert np.isfinite(model.transform(images)).all() and np.isfinite(model.loss_)
    assert n_distinct != 3 or len(set(zip(model.labels_, np.arange(60) % 3, strict=True))) == 3


@both
def test_one_cluster_and_less_than_one_batch_suffice(kind, digits):
    model = quick(kind, 1, batch_size=1000).fit(digits[0][:5])
    assert model.labels_.tolist() == [0] * 5
    model = quick(kind, 2, batch_size=4).fit(digits[0][:5])  # a last batch of one
    assert model.labels_.shape == (5,)


# ---- randomness


@both
def test_same_random_state_gives_the_same_fit(kind, digits):
    model = quick(kind, init="kmeans").fit(digits[0])
    assert_same_fit(model, clone(model).fit(digits[0]))
    state = np.random.RandomState(3)
    a, b = (quick(kind, random_state=state).fit(digits[0]) for _ in range(2))
    assert (a.cluster_centers_ != b.cluster_centers_).any()


def test_fit_is_independent_of_global_random_state(digits):
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1]
    model = quick(DTIKMeans).fit(digits[0])
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(2)
    assert_same_fit(model, quick(DTIKMeans).fit(digits[0]))


def test_second_fit_starts_from_scratch(digits):
    images, _ = digits
    model = quick(DTIKMeans).fit(1 - images[:30])
    assert_same_fit(model.fit(images), quick(DTIKMeans).fit(images))


def test_n_init_keeps_the_lowest_loss(digits):
    images, _ = digits
    kept = quick(DTIKMeans, n_init=3).fit(images)
    seeds = np.random.RandomState(0)
    models = [quick(DTIKMeans, random_state=seeds).fit(images) for _ in range(3)]
    assert_same_fit(kept, min(models, key=lambda model: model.loss_))
    assert len({model.loss_ for model in models}) == 3


# ---- invalid input


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((5, 64)), r"X is \(5, 64\): expected \(n, h, w\)"),
        (np.zeros((5, 8, 8, 2)), "1 or 3 channels"),
        (np.zeros((5, 8, 8, 3, 1)), "1 or 3 channels"),
        (np.zeros((0, 8, 8)), r"X is \(0, 8, 8\)"),
        (np.zeros((5, 0, 8)), r"X is \(5, 0, 8\)"),
        (np.zeros((5, 8, 8), int), "X is int64: expected uint8"),
        (np.zeros((5, 8, 8), bool), "X is bool: expected uint8"),
        (np.zeros((5, 8, 8), complex), "X is complex128: expected uint8"),
        (np.full((5, 8, 8), None), "X is object: expected uint8"),
        (np.full((5, 8, 8), np.nan), "X has values of nan to nan: expected 0 to 1"),
        (np.full((5, 8, 8), np.inf), "X has values of inf to inf: expected 0 to 1"),
        (np.full((5, 8, 8), 16.0), "X has values of 16 to 16: expected 0 to 1"),
        (np.full((5, 8, 8), -0.1), "X has values of -0.1 to -0.1: expected 0 to 1"),
        (np.zeros((2, 8, 8)), "n_clusters is 3, but X has only 2 images"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.shape),
)
def test_invalid_images_are_an_error(images, reason):
    with pytest.raises(ValueError, match=reason) as error:
        quick(DTIKMeans).fit(images)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"n_clusters": 0}, "n_clusters is 0: expected an integer above 0"),
        ({"n_clusters": -1}, "n_clusters is -1"),
        ({"n_clusters": 2.5}, "n_clusters is 2.5"),
        ({"n_init": 0}, "n_init is 0"),
        ({"n_epochs": 0}, "n_epochs is 0"),
        ({"n_epochs": "many"}, "n_epochs is 'many'"),
        ({"batch_size": 1}, "batch_size is 1: expected 2 or more"),
        ({"lr": -1}, "lr is -1: expected a number above 0"),
        ({"lr": np.nan}, "lr is nan: expected a number above 0"),
        ({"lr": 1e30}, "lower"),
        ({"init": "k-means++"}, r"init is 'k-means\+\+': expected one of sample, kmeans"),
        ({"encoder": "resnet19"}, "encoder is 'resnet19': expected one of strided"),
        ({"transformations": ["rotate"]}, "transformations is 'rotate'"),
        ({"transformations": []}, r"transformations is \[\]: expected one or more"),
        ({"curriculum": [0.5]}, "curriculum is .*: expected 2"),
        ({"random_state": "x"}, "cannot be used to seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@both
def test_invalid_parameter_is_an_error_with_its_name(kind, digits, options, reason):
    model = kind(**{"n_clusters": 3, "n_epochs": 3} | options)
    with pytest.raises(ValueError, match=reason) as error:
        model.fit(digits[0])
    assert "\n" not in str(error.value)
    with pytest.raises(NotFittedError):
        model.predict(digits[0])


def test_one_image_is_an_error(digits):
    with pytest.raises(ValueError, match="only 1 image"):
        quick(DTIKMeans, 1).fit(digits[0][:1])


def test_images_of_another_shape_than_in_fit_are_an_error(fitted):
    with pytest.raises(ValueError, match=r"shape \(9, 8\): expected \(8, 8\), as in fit"):
        fitted.predict(np.zeros((2, 9, 8)))
    with pytest.raises(ValueError, match=r"shape \(8, 8, 1\): expected \(8, 8\), as in fit"):
        fitted.score(np.zeros((2, 8, 8, 1)))


# ---- scikit-learn's conventions


@both
@pytest.mark.parametrize(
    "check",
    [
        check_no_attributes_set_in_init,
        check_get_params_invariance,
        check_set_params,
        check_estimator_repr,
        check_mixin_order,
    ],
)
def test_scikit_learn_checks_pass(kind, check):
    check(kind.__name__, kind())


@both
def test_parameters_have_defaults_and_are_stored_unchanged(kind):
    check_parameters_default_constructible(kind.__name__, kind())
    marks = {name: object() for name in inspect.signature(kind).parameters}
    assert vars(kind(**marks)) == marks


@both
def test_estimator_is_a_clusterer(kind):
    assert is_clusterer(kind())
    assert all(issubclass(kind, each) for each in (TransformerMixin, ClusterMixin, BaseEstimator))


@both
@pytest.mark.parametrize("method", ["predict", "transform", "score"])
def test_unfitted_estimator_raises_not_fitted_error(kind, method, digits):
    with pytest.raises(NotFittedError):
        getattr(kind(), method)(digits[0])
    with pytest.raises(NotFittedError):
        DTIGMM().predict_proba(digits[0])


@both
def test_fit_returns_self_and_changes_no_parameter(kind, digits):
    model = quick(kind)
    before = model.get_params()
    assert model.fit(digits[0], y=digits[1]) is model
    assert model.get_params() == before
    learned = vars(model).keys() - before.keys()
    assert {name for name in learned if not name.startswith("_")} == {
        "labels_",
        "cluster_centers_",
        "loss_",
        "n_iter_",
    }


def test_fit_predict_and_fit_transform_match_separate_calls(digits):
    images, _ = digits
    model = quick(DTIKMeans).fit(images)
    np.testing.assert_array_equal(quick(DTIKMeans).fit_predict(images), model.labels_)
    np.testing.assert_array_equal(quick(DTIKMeans).fit_transform(images), model.transform(images))


def test_copied_estimator_gives_the_same_distances(fitted, digits):
    copied = copy.deepcopy(fitted)
    np.testing.assert_array_equal(copied.transform(digits[0]), fitted.transform(digits[0]))


def test_estimator_works_in_a_pipeline(digits):
    pipeline = make_pipeline(None, quick(DTIKMeans)).set_params(dtikmeans__n_clusters=2)
    assert set(pipeline.fit_predict(digits[0])) <= {0, 1}


def test_default_n_epochs_is_larger_for_few_images():
    # 1500 steps: 100 images are 2 batches per epoch, 100,000 are 1563
    assert DTIKMeans()._config(0, 100).training.n_epochs == 750
    assert DTIKMeans()._config(0, 100_000).training.n_epochs == 15
