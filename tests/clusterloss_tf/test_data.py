"""Who is held out, who meets whom in a batch, and shifts."""

import logging

import numpy as np
import pytest
import tensorflow as tf

from clusterloss_tf import config, data
from common import UserError, datasets

LABELS = np.repeat(np.arange(6), [10, 10, 10, 10, 10, 3])


@pytest.fixture
def found(monkeypatch):
    """Twelve images each of five classes, in the place of a data set."""
    labels = np.tile(np.arange(5), 12)
    images = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    paths = [f"{i}.png" for i in range(60)]
    return datasets.Images(images, labels, paths, list("abcde"), [], "0")


def load(monkeypatch, found, **options):
    monkeypatch.setattr(datasets, "load", lambda *_: found)
    return data.load(config.Dataset(**options))


def test_seen_holds_out_a_share_of_every_class(monkeypatch, found):
    train, test = load(monkeypatch, found, held_out=0.25)
    assert np.bincount(train.labels).tolist() == [9] * 5
    assert np.bincount(test.labels).tolist() == [3] * 5
    assert sorted(train.paths + test.paths) == sorted(found.paths)
    for part in (train, test):  # rows stay together, in the order of the data set
        numbers = [int(path.removesuffix(".png")) for path in part.paths]
        assert numbers == sorted(numbers) == part.images[:, 0, 0, 0].tolist()
        assert part.labels.tolist() == [i % 5 for i in numbers]


def test_disjoint_tests_on_the_last_classes_whole(monkeypatch, found):
    train, test = load(monkeypatch, found, protocol="disjoint", held_out=0.5)
    assert np.unique(train.labels).tolist() == [0, 1, 2]
    assert np.unique(test.labels).tolist() == [3, 4] and len(test.labels) == 24


def test_two_classes_are_needed_on_each_side(monkeypatch, found):
    with pytest.raises(UserError, match="two classes to train on and two to test on"):
        load(monkeypatch, found, protocol="disjoint", held_out=0.9)
    one = data._part(found, found.labels == 0)
    with pytest.raises(UserError, match="has 1 class: metric learning needs two"):
        load(monkeypatch, one)


def test_cifar100_has_twenty_super_classes_of_five():
    groups = data.superclasses("cifar100", np.arange(100))
    assert np.bincount(groups).tolist() == [5] * 20
    # apple 0, orange 53 and sweet_pepper 83 are fruit; bicycle 8 and train 90 go on wheels
    assert groups[0] == groups[53] == groups[83] and groups[8] == groups[90] != groups[0]
    with pytest.raises(UserError, match="cifar10 has none"):
        data.superclasses("cifar10", np.arange(10))


def batches(**changed):
    options = {"batch_size": 12, "images_per_class": 4, "seed": 0, "epoch": 0} | changed
    return list(data.batches(LABELS, **options))


def test_a_batch_has_p_classes_with_m_images_each():
    found = batches()
    assert len(found) == 53 // 12
    for chosen in found:
        sizes = np.bincount(LABELS[chosen], minlength=6)
        assert sorted(sizes.tolist()) == [0, 0, 0, 4, 4, 4]


def test_few_classes_fill_a_batch_with_more_images_of_each():
    assert data.batch_shape(5, 128, 4) == (5, 25)
    assert data.batch_shape(100, 128, 4) == (32, 4)
    assert data.batch_shape(3, 2, 4) == (1, 2)


def test_no_image_of_a_class_comes_again_before_all_were_met():
    labels = np.repeat([0, 1], 8)
    met = np.concatenate(list(data.batches(labels, 4, 2, seed=0, epoch=0)))
    assert sorted(met.tolist()) == list(range(16))


def test_a_class_with_too_few_images_repeats_them():
    of_small = [c[LABELS[c] == 5] for seed in range(9) for c in batches(seed=seed)]
    of_small = [chosen for chosen in of_small if len(chosen)]
    assert of_small and all(len(chosen) == 4 and len(set(chosen)) == 3 for chosen in of_small)


def test_seed_and_epoch_alone_decide_the_order():
    first = np.concatenate(batches())
    np.testing.assert_array_equal(first, np.concatenate(batches()))
    assert not np.array_equal(first, np.concatenate(batches(epoch=1)))
    assert not np.array_equal(first, np.concatenate(batches(seed=1)))


def test_classes_meet_others_from_batch_to_batch():
    together = {frozenset(LABELS[chosen]) for epoch in range(5) for chosen in batches(epoch=epoch)}
    assert len(together) > 8  # of the 20 triples


def test_super_classes_stay_together():
    groups = np.array([0, 1, 0, 1, 0, 1])
    for chosen in batches(groups=groups, seed=3):
        assert len(set(groups[LABELS[chosen]])) == 1


def test_a_batch_with_nothing_to_compare_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        list(data.batches(np.zeros(8, int), 4, 2, 0, 0))
        list(data.batches(np.arange(8), 4, 1, 0, 0))
    assert caplog.text.count("there is nothing to compare") == 2


def test_keras_and_tf_data_give_the_same_batches():
    images = np.arange(53, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    found = data.ClassBatches(images, LABELS, 12, 4, seed=5)
    stream = iter(data.to_tf_dataset(found))
    for _ in range(2):  # two epochs
        for i in range(len(found)):
            x, y = next(stream)
            np.testing.assert_array_equal(x, found[i][0])
            np.testing.assert_array_equal(y, found[i][1])
            np.testing.assert_array_equal(LABELS[found[i][0][:, 0, 0, 0]], found[i][1])
        found.on_epoch_end()


# ---- images


def test_a_shift_moves_the_whole_image_and_mirrors_its_border():
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    padded = np.pad(image[0, ..., 0], 1, "symmetric")
    windows = {padded[y : y + 8, x : x + 8].tobytes() for y in range(3) for x in range(3)}
    met = set()
    for step in range(40):
        moved = data.augment(tf.constant(image), "crop", tf.constant([0, step]))
        met.add(moved.numpy()[0, ..., 0].tobytes())
    assert met <= windows and len(met) > 5


def test_flip_mirrors_some_images():
    image = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1).repeat(64, 0)
    moved = data.augment(tf.constant(image), "flip", tf.constant([0, 0])).numpy()[:, 0, :, 0]
    n_falling = np.count_nonzero(moved[:, 0] > moved[:, -1])
    assert 10 < n_falling < 54


def test_the_same_seed_gives_the_same_shifts():
    images = tf.random.stateless_uniform((6, 8, 8, 3), (0, 0))
    first, again, other = (
        data.augment(images, "flip", tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_gray_becomes_rgb_and_the_reverse():
    gray = np.array([[[[9]]]], np.uint8)
    assert data.fit_to(gray, 3).tolist() == [[[[9, 9, 9]]]]
    # 0.299 * 100 + 0.587 * 50 + 0.114 * 10 = 60.39
    assert data.fit_to(np.array([[[[100, 50, 10]]]], np.uint8), 1).tolist() == [[[[60]]]]
