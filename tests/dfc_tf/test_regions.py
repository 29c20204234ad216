import numpy as np
import pytest

from common.bsds import components
from dfc_tf import config, regions


def test_labels_join_where_it_costs_least():
    labels = np.array([[0, 0, 1, 2, 2]])
    image = np.array([[0.0, 0.0, 0.2, 1.0, 1.0]])[..., None]
    # 0 with 1: 2/3 of a pixel times 0.04; 1 with 2: 2/3 times 0.64; 0 with 2: 1 times 1
    assert regions.merge_labels(labels, image, 2).tolist() == [[0, 0, 0, 2, 2]]
    assert (
        regions.merge_labels(labels, image, 1).max() == regions.merge_labels(labels, image, 1).min()
    )
    assert regions.merge_labels(labels, image, 9).tolist() == labels.tolist()


def test_a_small_piece_joins_the_neighbour_of_its_colour():
    labels = np.array([[0, 0, 0, 1, 2, 2, 2]])
    image = np.array([[0.0, 0.0, 0.0, 0.7, 1.0, 1.0, 1.0]])[..., None]
    assert regions.merge_small(labels, image, 2).tolist() == [[0, 0, 0, 2, 2, 2, 2]]
    assert regions.merge_small(labels, image, 1).tolist() == labels.tolist()


def test_small_pieces_join_each_other_first_and_may_be_large_enough_then():
    labels = np.array([[0, 0, 0, 1, 2, 3, 3, 3]])
    image = np.array([[0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 1.0]])[..., None]
    found = regions.merge_small(labels, image, 2)
    assert found[0, 3] == found[0, 4] and len(np.unique(found)) == 3


def test_the_pieces_of_one_label_are_judged_one_by_one():
    labels = np.array([[1, 0, 0, 0, 1, 1, 1]])
    image = np.zeros((1, 7, 1))
    assert regions.merge_small(labels, image, 2).tolist() == [[0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.99])
def test_no_piece_is_left_below_the_minimum(share):
    random = np.random.default_rng(0)
    labels, image = random.integers(0, 5, (20, 30)), random.random((20, 30, 3))
    found = regions.merge_small(labels, image, share * labels.size)
    sizes = np.bincount(components(found, 4).ravel())
    assert len(sizes) == 1 or sizes.min() >= share * labels.size
    assert set(np.unique(found)) <= set(range(5))


def test_borders_are_shared_sides_and_sums_along_them():
    pieces, values = np.array([[0, 1], [2, 1]]), np.array([[1.0, 3.0], [4.0, 8.0]])
    near = regions.borders(pieces, lambda a, b: abs(values[a] - values[b]))
    # a side and a gap: 1 to 3, 1 to 4, 4 to 8
    expected = {0: {1: [1, 2], 2: [1, 3]}, 1: {0: [1, 2], 2: [1, 4]}, 2: {0: [1, 3], 1: [1, 4]}}
    assert {i: {j: b.tolist() for j, b in near[i].items()} for i in near} == expected
    assert regions.borders(np.array([[0, 1], [0, 1]]))[0][1].tolist() == [2]
    assert regions.borders(np.zeros((1, 1), int)) == {0: {}}


def test_labels_are_numbered_from_the_largest():
    labels = np.array([[7, 7, 7, 2, 2, 9]], np.uint16)
    found = regions.finish(labels, np.zeros((1, 6, 1)), config.Model())
    assert found.tolist() == [[0, 0, 0, 1, 1, 2]]


def test_a_target_number_of_labels_is_met():
    random = np.random.default_rng(0)
    labels, image = random.integers(0, 30, (20, 20)), random.random((20, 20, 3))
    for k in (1, 2, 7):
        found = regions.finish(labels, image, config.Model(n_labels=k))
        assert np.unique(found).tolist() == list(range(k))


def test_every_region_takes_the_label_of_most_of_its_pixels():
    labels = np.array([[0, 0, 1, 1, 1, 2]])
    found = regions.majorities(labels, np.array([[0, 0, 0, 1, 1, 1]]))
    assert found.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert regions.label_shares(labels, labels).tolist() == np.eye(3).tolist()


def test_regions_join_while_colours_and_labels_are_alike():
    pieces = np.repeat([0, 1, 2, 3], 5)[None]
    image = np.repeat([0.5, 0.5, 0.5, 0.9], 5)[None, :, None]
    labels = np.repeat([0, 0, 1, 1], 5)[None]
    # 0 and 1 are equal. 1 and 2 differ in their labels by 2 x 0.3^2, 2 and 3 in colour by 0.4^2:
    # more than LARGEST_COST, whatever their size
    found = regions.merge_similar(labels, image, pieces)
    assert found.tolist() == np.repeat([0, 0, 2, 3], 5)[None].tolist()
    alike = regions.merge_similar(np.zeros_like(labels), np.zeros(image.shape), pieces)
    assert len(np.unique(alike)) == 1


def test_an_edge_between_regions_of_one_colour_keeps_them_apart():
    pieces = np.repeat([0, 1], 5)[None]
    labels = np.zeros(pieces.shape, int)
    edge = np.array([0.4, 0.4, 0.4, 0.4, 0.9, 0.1, 0.6, 0.6, 0.6, 0.6])  # both have mean 0.5
    assert len(np.unique(regions.merge_similar(labels, edge[None, :, None], pieces))) == 2
    flat = np.full((1, 10, 1), 0.5)
    assert len(np.unique(regions.merge_similar(labels, flat, pieces))) == 1


@pytest.mark.parametrize("name", ["majority", "merge"])
def test_regions_follow_the_edges_of_the_picture(name):
    truth = np.zeros((40, 60), int)
    truth[8:30, 10:35] = 1
    image = np.array([[0.8, 0.2, 0.1], [0.1, 0.3, 0.8]])[truth]
    noisy = np.where(np.random.default_rng(0).random(truth.shape) < 0.2, 1 - truth, truth)
    found = regions.finish(noisy, image, config.Model(regions=name))
    inside, outside = found[10:28, 12:33], found[:6]
    assert len(np.unique(inside)) == len(np.unique(outside)) == 1
    assert inside[0, 0] != outside[0, 0]
