"""The estimator and the callback, on classes of different brightness."""

import numpy as np
import pytest
from sklearn.base import clone

from clusterloss_tf import FacilityLocationLoss, MetricLearner, RetrievalCallback
from clusterloss_tf.data import ClassBatches
from common import metrics
from common.tf import keras
from tests.every_paper import noise_images, warnings_of


@pytest.fixture(scope="module")
def sample():
    random = np.random.default_rng(0)
    labels = np.tile(np.array(["b", "a", "c"]), 10)
    brightness = {"a": 60, "b": 120, "c": 180}
    noise = random.normal(0, 30, (30, 8, 8))
    images = np.clip(np.array([brightness[x] for x in labels])[:, None, None] + noise, 0, 255)
    return images.astype(np.uint8), labels


def learner(**changed):
    options = {"dim": 4, "depth": 7, "growth": 4, "n_epochs": 3, "batch_size": 12}
    return MetricLearner(**options | changed)


@pytest.fixture(scope="module")
def fitted(sample):
    return learner().fit(*sample)


def test_transform_gives_unit_vectors_and_score_recall(fitted, sample):
    images, labels = sample
    embeddings = fitted.transform(images)
    assert embeddings.shape == (30, 4) and fitted.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    assert fitted.score(images, labels) == metrics.recall_at_k(embeddings, labels, [1])[1]
    assert len(fitted.losses_) == 3 * (30 // 12) and np.isfinite(fitted.losses_).all()


@pytest.mark.slow
def test_same_random_state_gives_same_embeddings(fitted, sample):
    again = clone(fitted).fit(*sample)
    np.testing.assert_array_equal(again.transform(sample[0]), fitted.transform(sample[0]))


def test_floats_are_equivalent_to_uint8(fitted, sample):
    floats = (sample[0] / 255.0)[..., None]
    np.testing.assert_allclose(fitted.transform(floats), fitted.transform(sample[0]), atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"loss": "best"}, "loss is 'best': expected one of facility"),
        ({"refine": "none"}, "refine is 'none'"),
        ({"augment": "cut"}, "augment is 'cut'"),
        ({"dim": 0}, "model.dim is 0"),
        ({"lr": float("nan")}, "training.lr is nan"),
        ({"n_epochs": -1}, "training.n_epochs is -1"),
    ],
)
def test_invalid_parameters_raise_value_error(sample, changed, reason):
    with pytest.raises(ValueError, match=reason):
        learner(**changed).fit(*sample)


def test_invalid_images_and_labels_raise_value_error(fitted, sample):
    images, labels = sample
    for invalid, reason in (
        (images[0], r"expected \(n, h, w\)"),
        (images.astype(float), "expected 0 to 1"),
        (np.full((4, 8, 8), np.nan), "expected 0 to 1"),
        (images.astype(int), "expected uint8"),
        (images[:, :5], "as in fit"),
    ):
        with pytest.raises(ValueError, match=reason):
            fitted.transform(invalid)
    for y, reason in (
        (labels[1:], r"30 images, y labels of shape \(29,\)"),
        (labels[:, None], r"y labels of shape \(30, 1\)"),
        (np.zeros(30), "number of classes in y is 1: expected 2"),
        (np.where(labels == "a", np.nan, 1), "has the label nan"),
        (np.arange(30) / 2, "has the label 0.5"),
        ([None] * 30, "is of type object"),
    ):
        with pytest.raises(ValueError, match=reason):
            learner().fit(images, y)
        if "expected 2" not in reason:
            with pytest.raises(ValueError, match=reason):
                fitted.score(images, y)
    for make in (RetrievalCallback, ClassBatches):
        with pytest.raises(ValueError, match="has the label nan"):
            make(images, np.where(labels == "a", np.nan, 1))


def test_whole_floats_are_integer_labels(sample):
    images, names = sample
    codes = np.unique(names, return_inverse=True)[1]
    models = [learner(n_epochs=1).fit(images, y) for y in (codes, codes.astype(float))]
    assert [model.classes_.tolist() for model in models] == [[0, 1, 2]] * 2
    assert models[0].losses_ == models[1].losses_


@pytest.mark.parametrize("n_distinct", [1, 3, 30])
def test_few_distinct_images_are_warned_about_once(n_distinct):
    images, labels = noise_images(60, n_distinct, 8, 8), np.arange(60) // 3 % 5
    model = learner(n_epochs=1)
    caught = warnings_of(lambda: model.fit(images, labels))
    assert len(caught) == (n_distinct < 5) and all("images are" in message for message in caught)
    assert np.isfinite(model.losses_).all() and 0 <= model.score(images, labels) <= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with h5py
def test_callback_scores_each_epoch_and_saves_best(sample, tmp_path):
    images, names = sample
    x, y = (images / 255.0)[..., None].astype(np.float32), np.unique(names, return_inverse=True)[1]
    keras.utils.set_random_seed(0)
    net = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4),
         keras.layers.UnitNormalization()]
    )  # fmt: skip
    net.compile(keras.optimizers.Adam(0.01), FacilityLocationLoss(12.0))
    callback = RetrievalCallback(x, y, tmp_path / "best.weights.h5")
    history = net.fit(ClassBatches(x, y, 12, 4), epochs=3, verbose=0, callbacks=[callback]).history
    recalls = history["val_recall_at_1"]
    assert len(recalls) == 3 and callback.best == max(recalls)
    assert {"val_map_at_r", "val_r_precision"} <= history.keys()
    net.load_weights(tmp_path / "best.weights.h5")
    recall = metrics.recall_at_k(net.predict(x, verbose=0), y, [1])[1]
    assert recall == max(recalls)
