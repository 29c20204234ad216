import numpy as np
import pytest

from common.bsds import components
from dfc_tf import config, regions


def test_merge_labels_joins_the_cheapest_pair():
    labels = np.array([[0, 0, 1, 2, 2]])
    image = np.array([[0.0, 0.0, 0.2, 1.0, 1.0]])[..., None]
    # 0 and 1: 2 * 1 / 3 * 0.2^2; 1 and 2: 2 * 1 / 3 * 0.8^2; 0 and 2: 2 * 2 / 4 * 1
    assert regions.merge_labels(labels, image, 2).tolist() == [[0, 0, 0, 2, 2]]
    assert len(np.unique(regions.merge_labels(labels, image, 1))) == 1
    assert regions.merge_labels(labels, image, 9).tolist() == labels.tolist()


def test_small_segment_joins_the_neighbor_of_similar_color():
    labels = np.array([[0, 0, 0, 1, 2, 2, 2]])
    image = np.array([[0.0, 0.0, 0.0, 0.7, 1.0, 1.0, 1.0]])[..., None]
    assert regions.merge_small(labels, image, 2).tolist() == [[0, 0, 0, 2, 2, 2, 2]]
    assert regions.merge_small(labels, image, 1).tolist() == labels.tolist()


def test_small_segments_of_one_color_join_each_other():
    labels = np.array([[0, 0, 0, 1, 2, 3, 3, 3]])
    image = np.array([[0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 1.0]])[..., None]
    merged = regions.merge_small(labels, image, 2)
    assert merged[0, 3] == merged[0, 4] and len(np.unique(merged)) == 3


def test_components_of_a_label_are_merged_separately():
    labels = np.array([[1, 0, 0, 0, 1, 1, 1]])
    image = np.zeros((1, 7, 1))
    assert regions.merge_small(labels, image, 2).tolist() == [[0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.5, 0.99])
def test_no_segment_below_the_minimum_is_left(fraction):
    random = np.random.default_rng(0)
    labels, image = random.integers(0, 5, (20, 30)), random.random((20, 30, 3))
    merged = regions.merge_small(labels, image, fraction * labels.size)
    sizes = np.bincount(components(merged, 4).ravel())
    assert len(sizes) == 1 or sizes.min() >= fraction * labels.size
    assert set(np.unique(merged)) <= set(range(5))


def test_postprocess_sorts_labels_by_size():
    labels = np.array([[7, 7, 7, 2, 2, 9]], np.uint16)
    sorted_labels = regions.postprocess(labels, np.zeros((1, 6, 1)), config.Model())
    assert sorted_labels.tolist() == [[0, 0, 0, 1, 1, 2]]


def test_postprocess_gives_n_labels():
    random = np.random.default_rng(0)
    labels, image = random.integers(0, 30, (20, 20)), random.random((20, 20, 3))
    for k in (1, 2, 7):
        merged = regions.postprocess(labels, image, config.Model(n_labels=k))
        assert np.unique(merged).tolist() == list(range(k))


def test_majority_label_of_each_region():
    labels = np.array([[0, 0, 1, 1, 1, 2]])
    majority = regions.majority_labels(labels, np.array([[0, 0, 0, 1, 1, 1]]))
    assert majority.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert regions.label_fractions(labels, labels).tolist() == np.eye(3).tolist()


def test_regions_of_similar_color_and_labels_merge():
    segments = np.repeat([0, 1, 2, 3], 5)[None]
    image = np.repeat([0.5, 0.5, 0.5, 0.9], 5)[None, :, None]
    labels = np.repeat([0, 0, 1, 1], 5)[None]
    # 0 and 1 are equal. 1 and 2 differ in their labels by 2 x 0.3^2, 2 and 3 in color by 0.4^2:
    # more than MAX_COST, whatever their size
    merged = regions.merge_similar(labels, image, segments)
    assert merged.tolist() == np.repeat([0, 0, 1, 2], 5)[None].tolist()
    merged = regions.merge_similar(np.zeros_like(labels), np.zeros(image.shape), segments)
    assert len(np.unique(merged)) == 1


def test_edge_keeps_regions_of_one_mean_color_apart():
    segments = np.repeat([0, 1], 5)[None]
    labels = np.zeros(segments.shape, int)
    edge = np.array([0.4, 0.4, 0.4, 0.4, 0.9, 0.1, 0.6, 0.6, 0.6, 0.6])  # both have mean 0.5
    assert len(np.unique(regions.merge_similar(labels, edge[None, :, None], segments))) == 2
    flat = np.full((1, 10, 1), 0.5)
    assert len(np.unique(regions.merge_similar(labels, flat, segments))) == 1


@pytest.mark.parametrize("name", ["majority", "merge"])
def test_regions_follow_image_edges(name):
    truth = np.zeros((40, 60), int)
    truth[8:30, 10:35] = 1
    image = np.array([[0.8, 0.2, 0.1], [0.1, 0.3, 0.8]])[truth]
    noisy = np.where(np.random.default_rng(0).random(truth.shape) < 0.2, 1 - truth, truth)
    labels = regions.postprocess(noisy, image, config.Model(regions=name))
    inside, outside = labels[10:28, 12:33], labels[:6]
    assert len(np.unique(inside)) == len(np.unique(outside)) == 1
    assert inside[0, 0] != outside[0, 0]
