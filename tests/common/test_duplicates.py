"""Warnings about equal images and images of one color."""

import time
import warnings

import numpy as np
import pytest
from sklearn.cluster import KMeans

from common import duplicates


def noise(n, n_distinct):
    """n images, the first n_distinct of which are repeated."""
    images = np.random.default_rng(0).integers(0, 256, (n_distinct, 8, 8, 3), np.uint8)
    return np.resize(images, (n, 8, 8, 3))


@pytest.mark.parametrize(
    ("n_distinct", "n_clusters", "warning"),
    [
        (1, 5, "all 60 images are equal: there is only one cluster to find"),
        (1, 1, "all 60 images are equal"),
        (3, 5, "only 3 of 60 images are distinct, fewer than the 5 clusters"),
        (4, 5, "only 4 of 60 images are distinct"),
        (5, 5, ""),
        (2, 1, ""),
        (60, 5, ""),
    ],
)
def test_fewer_distinct_images_than_clusters_are_warned_about(n_distinct, n_clusters, warning):
    message = duplicates.few_distinct(noise(60, n_distinct), n_clusters)
    assert message.startswith(warning) and bool(message) == bool(warning)


def test_images_differ_in_one_value_and_in_any_memory_order():
    images = np.zeros((4, 6, 7))
    images[3, 5, 6] = 1e-12
    assert duplicates.count_distinct(images, 9) == 2
    assert duplicates.count_distinct(np.asfortranarray(images), 9) == 2
    assert duplicates.count_distinct(iter(images), 1) == 1


def test_count_of_distinct_images_stops_at_the_limit():
    def images():
        yield np.zeros(3)
        yield np.ones(3)
        raise AssertionError("read on")

    assert duplicates.count_distinct(images(), 2) == 2


def test_70000_equal_images_take_less_than_a_second():
    began = time.process_time()
    assert "all 70000" in duplicates.few_distinct(np.zeros((70000, 28, 28), np.uint8), 10)
    assert time.process_time() - began < 1


def test_images_of_one_color_are_warned_about_in_one_line():
    gray, photo = np.full((4, 5, 3), 90, np.uint8), noise(1, 1)[0]
    striped = np.tile(np.array([0, 1, 2], np.uint8), (4, 5, 1))  # a color, not a gray
    plain = [duplicates.is_one_color(image) for image in (gray, photo, striped)]
    assert plain == [True, False, True]
    assert duplicates.one_color([True]) == "the image has only one color: it has one segment"
    assert duplicates.one_color(plain).startswith("2 of 3 images have only one color")
    assert duplicates.one_color([False, False]) == ""


def test_kmeans_of_equal_points_is_silent():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with duplicates.without_kmeans_warning():
            KMeans(3, n_init=1).fit(np.zeros((9, 2)))
        assert caught == []
        KMeans(3, n_init=1).fit(np.zeros((9, 2)))
        assert len(caught) == 1
