import numpy as np
import pytest
from scipy import ndimage

from common.bsds import boundaries, components, hierarchy


def quadrants():
    """Four regions of 2x2 pixels of gray 0, 1, 4 and 9."""
    labels = np.array([[0, 1], [2, 3]]).repeat(2, 0).repeat(2, 1)
    return labels, np.array([0.0, 1, 4, 9])[labels][..., None]


def merge_quadrants():
    return hierarchy.merge(*quadrants(), size_power=0)


def test_neighbors_merge_at_the_squared_distance_of_their_means():
    merged = merge_quadrants()
    assert merged.pairs.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    # 0 and 1 at 1; their mean 0.5 and 4 at 12.25; the mean 5/3 of the three and 9 at 484/9
    assert merged.heights == pytest.approx([1, 12.25, 484 / 9, 484 / 9])


def test_features_of_regions_equal_features_of_pixels():
    labels, features = quadrants()
    means = hierarchy.region_means(labels, features)
    assert means.tolist() == [[0], [1], [4], [9]]
    merged = hierarchy.merge(labels, means, size_power=0)
    assert merged.heights.tolist() == merge_quadrants().heights.tolist()


def test_cut_joins_pairs_up_to_its_height():
    merged = merge_quadrants()
    assert [int(merged.cut(height).max()) + 1 for height in (0, 0.99, 1, 12, 13, 54)] == [
        4, 4, 3, 3, 2, 1,
    ]  # fmt: skip
    assert merged.cut(1)[0].tolist() == [0, 0, 0, 0]
    assert merged.cuts([0, 54]).shape == (2, 4, 4)


def test_regions_gives_at_most_n():
    merged = merge_quadrants()
    assert [int(merged.regions(n).max()) + 1 for n in (1, 2, 3, 4, 5)] == [1, 2, 3, 4, 4]
    with pytest.raises(ValueError, match="n is 0"):
        merged.regions(0)


STRIPES = np.array([[0, 0, 1, 1, 2, 2]]).repeat(3, 0)


@pytest.mark.parametrize("kind", ["pixels", "sides"])
def test_contrast_raises_the_cost_of_a_border(kind):
    contrast = np.array([[0.0, 0, 0, 1, 1, 0]]).repeat(3, 0)
    if kind == "sides":
        contrast = [np.array([[0.0, 0, 5, 1, 5]]).repeat(3, 0), np.full((2, 6), 5.0)]
    merged = hierarchy.merge(STRIPES, np.zeros((3, 6, 1)), contrast, size_power=0)
    # sides between columns 1 and 2 have contrast 0, between 3 and 4 contrast 1; weight 3
    assert merged.heights == pytest.approx([0, 3])


def test_label_changes_raise_the_cost_of_a_border():
    changes = np.array([[7, 7, 7, 7, 7, 7], [7, 7, 2, 2, 2, 2], [7, 7, 7, 7, 1, 1]])
    merged = hierarchy.merge(
        STRIPES, np.zeros((3, 6, 1)), changes=changes, changes_weight=6.0, size_power=0
    )
    # they differ at one of three sides between columns 1 and 2, and at one between 3 and 4
    assert merged.heights == pytest.approx([2, 2])


def test_small_regions_merge_first():
    labels = np.array([[0] * 6 + [1] * 6 + [2]])
    features = np.array([0.0, 1, 2])[labels][..., None]
    merged = hierarchy.merge(labels, features, size_power=1)
    # 1 * 6 * 1 / 7 before 1 * 6 * 6 / 12; then (8/7)^2 * 6 * 7 / 13
    assert merged.heights == pytest.approx([(8 / 7) ** 2 * 42 / 13, 6 / 7])


def merge_slowly(labels, features, contrast, changes, max_cost):
    """From pixels at every step: weights 3 and 2, size_power 0.5."""
    labels = labels.copy()
    while True:
        costs = []
        for i, j in hierarchy.neighbors(labels).tolist():
            sides = [
                ((contrast[p] + contrast[q]) / 2, changes[p] != changes[q])
                for a, b in hierarchy.SIDES
                for p, q in zip(
                    zip(*(axis[a].ravel() for axis in np.indices(labels.shape)), strict=True),
                    zip(*(axis[b].ravel() for axis in np.indices(labels.shape)), strict=True),
                    strict=True,
                )
                if {labels[p], labels[q]} == {i, j}
            ]
            edge, change = np.mean(sides, axis=0)
            gap = features[labels == i].mean(0) - features[labels == j].mean(0)
            n, m = (labels == i).sum(), (labels == j).sum()
            costs.append(((gap @ gap + 3 * edge**2 + 2 * change) * (n * m / (n + m)) ** 0.5, i, j))
        if not costs or min(costs)[0] > max_cost:
            return labels
        _, i, j = min(costs)
        labels[labels == j] = i


def test_cut_equals_stopping_at_that_cost():
    rng = np.random.default_rng(2)
    labels = components(rng.integers(0, 3, (7, 8)), 4)
    features, contrast = rng.random((7, 8, 2)), rng.random((7, 8))
    changes = rng.integers(0, 2, (7, 8))
    merged = hierarchy.merge(
        labels, features, contrast, changes=changes, changes_weight=2.0, size_power=0.5
    )
    for cost in (0.5, 1.5, 2.5):
        slow = merge_slowly(labels, features, contrast, changes, cost)
        assert 1 < len(np.unique(slow)) < labels.max()
        assert np.array_equal(components(merged.cut(cost), 4), components(slow, 4))


def merge_noise(seed=0, shape=(14, 17)):
    rng = np.random.default_rng(seed)
    labels = components(rng.integers(0, 4, shape), 4)
    return hierarchy.merge(labels, rng.random((*shape, 2)), rng.random(shape))


def test_cuts_are_nested():
    merged = merge_noise()
    levels = np.unique(merged.heights)
    for finer, coarser in zip(merged.cuts(levels[:-1]), merged.cuts(levels[1:]), strict=True):
        pairs = np.unique(np.stack([finer.ravel(), coarser.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1] > coarser.max()


def test_every_level_has_fewer_regions():
    merged = merge_noise()
    n = [int(merged.cut(level).max()) + 1 for level in [0, *np.unique(merged.heights)]]
    assert all(finer > coarser for finer, coarser in zip(n, n[1:], strict=False)) and n[-1] == 1


def test_contour_map_round_trip():
    merged = merge_noise()
    loaded = hierarchy.from_ucm(merged.ucm())
    for level in np.unique(merged.heights)[::5]:
        assert np.array_equal(components(loaded.cut(level), 4), components(merged.cut(level), 4))


def test_contour_map_above_a_height_is_the_boundary_of_its_cut():
    merged = merge_noise()
    ucm = merged.ucm()
    for level in np.unique(merged.heights)[::9]:
        edges = boundaries.thin(ucm[2::2, 2::2] > level)
        assert np.array_equal(edges, boundaries.of_labels(merged.cut(level)))


def test_contour_map_of_any_values_is_cut_as_by_the_official_tool():
    ucm = np.random.default_rng(1).random((15, 21))
    ucm[1::2, 1::2] = 0
    loaded = hierarchy.from_ucm(ucm)
    for height in (0.1, 0.3, 0.5):
        official = ndimage.label(ucm <= height, np.ones((3, 3)))[0][1::2, 1::2]
        pairs = set(zip(official.ravel(), loaded.cut(height).ravel(), strict=True))
        assert len(pairs) == official.max() == loaded.cut(height).max() + 1


def test_contour_map_of_even_size_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 5\): expected"):
        hierarchy.from_ucm(np.zeros((4, 5)))


def test_one_region():
    merged = hierarchy.merge(np.zeros((2, 3), int), np.zeros((2, 3, 1)))
    assert merged.cut(0).tolist() == merged.regions(1).tolist() == [[0, 0, 0]] * 2
    assert not merged.ucm().any()


def test_neighbors_share_a_side():
    # 0 and 3 share only a corner
    assert hierarchy.neighbors(np.array([[0, 1], [2, 3]])).tolist() == [
        [0, 1], [0, 2], [1, 3], [2, 3],
    ]  # fmt: skip
    assert hierarchy.neighbors(np.zeros((1, 1), int)).tolist() == []
