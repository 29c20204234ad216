"""Splits, batches and augmentation."""

import logging

import numpy as np
import pytest

from clusterloss_tf import config, data
from common import UserError, datasets
from common.tf import tf

LABELS = np.repeat(np.arange(6), [10, 10, 10, 10, 10, 3])


@pytest.fixture
def dataset():
    """Twelve images of each of five classes."""
    labels = np.tile(np.arange(5), 12)
    images = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    paths = [f"{i}.png" for i in range(60)]
    return datasets.Images(images, labels, paths, list("abcde"), [], "0")


def load(monkeypatch, dataset, **options):
    monkeypatch.setattr(datasets, "load", lambda *_: dataset)
    return data.load(config.Dataset(**options))


def test_seen_holds_out_fraction_of_each_class(monkeypatch, dataset):
    train, test = load(monkeypatch, dataset, held_out=0.25)
    assert np.bincount(train.labels).tolist() == [9] * 5
    assert np.bincount(test.labels).tolist() == [3] * 5
    assert sorted(train.paths + test.paths) == sorted(dataset.paths)
    for part in (train, test):  # images, labels and paths match, in the order of the dataset
        numbers = [int(path.removesuffix(".png")) for path in part.paths]
        assert numbers == sorted(numbers) == part.images[:, 0, 0, 0].tolist()
        assert part.labels.tolist() == [i % 5 for i in numbers]


def test_disjoint_tests_on_last_classes(monkeypatch, dataset):
    train, test = load(monkeypatch, dataset, protocol="disjoint", held_out=0.5)
    assert np.unique(train.labels).tolist() == [0, 1, 2]
    assert np.unique(test.labels).tolist() == [3, 4] and len(test.labels) == 24


def test_fewer_than_two_classes_are_refused(monkeypatch, dataset):
    with pytest.raises(UserError, match="two classes to train on and two to test on"):
        load(monkeypatch, dataset, protocol="disjoint", held_out=0.9)
    one_class = data._subset(dataset, dataset.labels == 0)
    with pytest.raises(UserError, match="has 1 class: metric learning needs two"):
        load(monkeypatch, one_class)


def test_cifar100_has_twenty_superclasses_of_five():
    groups = data.superclasses("cifar100", np.arange(100))
    assert np.bincount(groups).tolist() == [5] * 20
    # apple 0, orange 53 and sweet_pepper 83 are fruit; bicycle 8 and train 90 are vehicles
    assert groups[0] == groups[53] == groups[83] and groups[8] == groups[90] != groups[0]
    with pytest.raises(UserError, match="cifar10 has none"):
        data.superclasses("cifar10", np.arange(10))


def batches(**changed):
    options = {"batch_size": 12, "images_per_class": 4, "seed": 0, "epoch": 0} | changed
    return list(data.batches(LABELS, **options))


def test_batch_has_m_images_of_p_classes():
    epoch = batches()
    assert len(epoch) == 53 // 12
    for indices in epoch:
        sizes = np.bincount(LABELS[indices], minlength=6)
        assert sorted(sizes.tolist()) == [0, 0, 0, 4, 4, 4]


def test_few_classes_get_more_images_each():
    assert data.batch_shape(5, 128, 4) == (5, 25)
    assert data.batch_shape(100, 128, 4) == (32, 4)
    assert data.batch_shape(3, 2, 4) == (1, 2)


def test_images_are_drawn_without_replacement():
    labels = np.repeat([0, 1], 8)
    indices = np.concatenate(list(data.batches(labels, 4, 2, seed=0, epoch=0)))
    assert sorted(indices.tolist()) == list(range(16))


def test_class_with_too_few_images_repeats_them():
    drawn = [batch[LABELS[batch] == 5] for seed in range(9) for batch in batches(seed=seed)]
    drawn = [indices for indices in drawn if len(indices)]
    assert drawn and all(len(indices) == 4 and len(set(indices)) == 3 for indices in drawn)


def test_order_depends_on_seed_and_epoch_only():
    first = np.concatenate(batches())
    np.testing.assert_array_equal(first, np.concatenate(batches()))
    assert not np.array_equal(first, np.concatenate(batches(epoch=1)))
    assert not np.array_equal(first, np.concatenate(batches(seed=1)))


def test_batches_combine_different_classes():
    triples = {frozenset(LABELS[batch]) for epoch in range(5) for batch in batches(epoch=epoch)}
    assert len(triples) > 8  # of 20


def test_groups_keep_batches_in_one_superclass():
    groups = np.array([0, 1, 0, 1, 0, 1])
    for batch in batches(groups=groups, seed=3):
        assert len(set(groups[LABELS[batch]])) == 1


def test_batches_with_nothing_to_compare_warn(caplog):
    with caplog.at_level(logging.WARNING):
        list(data.batches(np.zeros(8, int), 4, 2, 0, 0))
        list(data.batches(np.arange(8), 4, 1, 0, 0))
    assert caplog.text.count("there is nothing to compare") == 2


def test_tf_dataset_has_batches_of_keras_dataset():
    images = np.arange(53, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    source = data.ClassBatches(images, LABELS, 12, 4, seed=5)
    stream = iter(data.to_tf_dataset(source))
    for _ in range(2):  # epochs
        for i in range(len(source)):
            (x, y), (expected_x, expected_y) = next(stream), source[i]
            np.testing.assert_array_equal(x, expected_x)
            np.testing.assert_array_equal(y, expected_y)
            np.testing.assert_array_equal(LABELS[expected_x[:, 0, 0, 0]], expected_y)
        source.on_epoch_end()


# ---- images


def test_crop_shifts_image_and_mirrors_border():
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    padded = np.pad(image[0, ..., 0], 1, "symmetric")
    windows = {padded[y : y + 8, x : x + 8].tobytes() for y in range(3) for x in range(3)}
    shifted = set()
    for step in range(40):
        augmented = data.augment(tf.constant(image), "crop", tf.constant([0, step]))
        shifted.add(augmented.numpy()[0, ..., 0].tobytes())
    assert shifted <= windows and len(shifted) > 5


def test_flip_mirrors_some_images():
    image = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1).repeat(64, 0)
    augmented = data.augment(tf.constant(image), "flip", tf.constant([0, 0])).numpy()[:, 0, :, 0]
    n_flipped = np.count_nonzero(augmented[:, 0] > augmented[:, -1])
    assert 10 < n_flipped < 54


def test_augmentation_depends_on_seed():
    images = tf.random.stateless_uniform((6, 8, 8, 3), (0, 0))
    first, again, other = (
        data.augment(images, "flip", tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
