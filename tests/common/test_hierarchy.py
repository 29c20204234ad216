import numpy as np
import pytest
from scipy import ndimage

from common.bsds import boundaries, components, hierarchy


def quadrants():
    """Four regions of 2x2 pixels of gray 0, 1, 4 and 9."""
    labels = np.array([[0, 1], [2, 3]]).repeat(2, 0).repeat(2, 1)
    return labels, np.array([0.0, 1, 4, 9])[labels][..., None]


def merged(**options):
    return hierarchy.merge(*quadrants(), size_power=0, **options)


def test_neighbours_join_at_the_squared_distance_of_their_means():
    found = merged()
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    # 0 and 1 at 1; their mean 0.5 and 4 at 12.25; the mean 5/3 of the three and 9 at 484/9
    assert found.heights == pytest.approx([1, 12.25, 484 / 9, 484 / 9])


def test_a_cut_joins_what_is_joined_at_its_height_and_not_above():
    found = merged()
    assert [int(found.cut(height).max()) + 1 for height in (0, 0.99, 1, 12, 13, 54)] == [
        4, 4, 3, 3, 2, 1,
    ]  # fmt: skip
    assert found.cut(1)[0].tolist() == [0, 0, 0, 0]
    assert found.cuts([0, 54]).shape == (2, 4, 4)


def test_a_number_of_regions_is_reached_from_below():
    found = merged()
    assert [int(found.regions(n).max()) + 1 for n in (1, 2, 3, 4, 5)] == [1, 2, 3, 4, 4]
    with pytest.raises(ValueError, match="n is 0"):
        found.regions(0)


def test_a_border_of_contrast_keeps_apart_what_has_one_colour():
    labels = np.array([[0, 0, 1, 1, 2, 2]]).repeat(3, 0)
    contrast = np.array([[0.0, 0, 0, 1, 1, 0]]).repeat(3, 0)
    found = hierarchy.merge(labels, np.zeros((3, 6, 1)), contrast, size_power=0)
    # sides lie between columns 1 and 2, contrast 0, and 3 and 4, contrast 1
    assert found.heights == pytest.approx([0, 3])


def test_small_regions_join_first():
    labels = np.array([[0] * 6 + [1] * 6 + [2]])
    features = np.array([0.0, 1, 2])[labels][..., None]
    found = hierarchy.merge(labels, features, size_power=1)
    # 1 * 6 * 1 / 7 before 1 * 6 * 6 / 12; then (8/7)^2 * 6 * 7 / 13
    assert found.heights == pytest.approx([(8 / 7) ** 2 * 42 / 13, 6 / 7])


def noise(seed=0, shape=(14, 17)):
    rng = np.random.default_rng(seed)
    labels = components(rng.integers(0, 4, shape), 4)
    return hierarchy.merge(labels, rng.random((*shape, 2)), rng.random(shape))


def test_cuts_are_nested():
    found = noise()
    levels = np.unique(found.heights)
    for finer, coarser in zip(found.cuts(levels[:-1]), found.cuts(levels[1:]), strict=True):
        pairs = np.unique(np.stack([finer.ravel(), coarser.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == pairs.shape[1] > coarser.max()


def test_every_level_takes_away_a_region():
    found = noise()
    n = [int(found.cut(level).max()) + 1 for level in [0, *np.unique(found.heights)]]
    assert all(finer > coarser for finer, coarser in zip(n, n[1:], strict=False)) and n[-1] == 1


def test_a_contour_map_holds_the_whole_hierarchy():
    found = noise()
    again = hierarchy.from_ucm(found.ucm())
    for level in np.unique(found.heights)[::5]:
        assert np.array_equal(components(again.cut(level), 4), components(found.cut(level), 4))


def test_a_contour_map_above_a_height_is_the_boundary_of_its_cut():
    found = noise()
    ucm = found.ucm()
    for level in np.unique(found.heights)[::9]:
        edges = boundaries.thin(ucm[2::2, 2::2] > level)
        assert np.array_equal(edges, boundaries.of_labels(found.cut(level)))


def test_a_contour_map_of_any_values_is_cut_as_the_official_tool_does():
    ucm = np.random.default_rng(1).random((15, 21))
    ucm[1::2, 1::2] = 0
    found = hierarchy.from_ucm(ucm)
    for height in (0.1, 0.3, 0.5):
        official = ndimage.label(ucm <= height, np.ones((3, 3)))[0][1::2, 1::2]
        pairs = set(zip(official.ravel(), found.cut(height).ravel(), strict=True))
        assert len(pairs) == official.max() == found.cut(height).max() + 1


def test_a_contour_map_of_an_even_side_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 5\): expected"):
        hierarchy.from_ucm(np.zeros((4, 5)))


def test_one_region_is_a_hierarchy_too():
    found = hierarchy.merge(np.zeros((2, 3), int), np.zeros((2, 3, 1)))
    assert found.cut(0).tolist() == found.regions(1).tolist() == [[0, 0, 0]] * 2
    assert not found.ucm().any()
