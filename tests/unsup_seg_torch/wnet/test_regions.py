"""Merging of probabilities and colors to a hierarchy of regions."""

import numpy as np
import pytest

from unsup_seg_torch.wnet import config, regions


@pytest.fixture
def bands():
    """Three noisy bands of color; the first two have one label, the third the other."""
    truth = np.repeat([0, 1, 2], 16)[:, None].repeat(40, 1)
    colors = np.array([[60, 80, 60], [90, 110, 95], [200, 150, 60]])[truth]
    image = colors + np.random.default_rng(0).normal(0, 3, colors.shape)
    labels = np.array([0, 0, 1])[truth]
    probabilities = np.where(np.arange(2)[:, None, None] == labels, 0.9, 0.1)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), probabilities, truth, labels


def are_similar(labels, expected):
    """Whether regions correspond one to one, apart from a border of a pixel or two."""
    table = np.zeros((labels.max() + 1, expected.max() + 1))
    np.add.at(table, (labels.ravel(), expected.ravel()), 1)
    rows, columns = table.argmax(0), table.argmax(1)
    one_to_one = len(rows) == len(columns) and (columns[rows] == np.arange(len(rows))).all()
    return one_to_one and table.max(0).sum() > 0.95 * labels.size


def are_equal(labels, expected):
    """Whether regions correspond one to one."""
    pairs = set(zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True))
    return len(pairs) == len(np.unique(labels)) == len(np.unique(expected))


def test_superpixels_merge_to_the_labels_before_the_whole_image(bands):
    image, probabilities, truth, labels = bands
    hierarchy = regions.hierarchy(probabilities, image, config.Model(regions="felzenszwalb"))
    finest = hierarchy.cut(0)
    assert are_equal(finest * 3 + truth, finest), "the finest regions do not cross an edge"
    assert are_similar(hierarchy.regions(2), labels)
    assert hierarchy.regions(1).max() == 0


def test_components_of_the_labels_are_the_finest_regions(bands):
    image, probabilities, _, labels = bands
    hierarchy = regions.hierarchy(probabilities, image, config.Model(regions="labels"))
    assert are_equal(hierarchy.cut(0), labels)


def test_labels_decide_if_colors_do_not(bands):
    image, _, truth, _ = bands
    gray = np.full_like(image, 128)
    gray[20:] = 140  # an edge of little contrast inside the second band
    probabilities = np.where(np.arange(2)[:, None, None] == (truth == 2), 0.95, 0.05)
    hierarchy = regions.hierarchy(probabilities, gray, config.Model(regions="labels"))
    assert are_equal(hierarchy.regions(2), truth == 2)


def test_enlarged_image_has_the_same_regions(bands, monkeypatch):
    image, probabilities, _, _ = bands
    monkeypatch.setattr(regions, "SIDE", max(image.shape))
    small = regions.hierarchy(probabilities, image, config.Model())
    probabilities = np.repeat(np.repeat(probabilities, 2, 1), 2, 2)
    image = np.repeat(np.repeat(image, 2, 0), 2, 1)
    large = regions.hierarchy(probabilities, image, config.Model())
    assert large.labels.shape == image.shape[:2]
    assert are_similar(large.regions(2)[::2, ::2], small.regions(2))


def test_heights_are_relative_to_the_contrast_of_the_image(bands):
    image, _, truth, _ = bands
    halved = np.rint(64 + image / 2).astype(np.uint8)
    uniform = np.ones((1, *truth.shape), np.float32)
    heights = [
        regions.hierarchy(uniform, each, config.Model()).heights.max() for each in (image, halved)
    ]
    # costs are squares of contrast; if they were not relative to it, the ratio would be 4
    assert 1.5 < heights[0] / heights[1] < 2.7


def test_color_step_shows_on_both_sides():
    values = np.zeros((4, 6, 2))
    values[:, 3:] = (3, 4)  # a distance of 5
    assert regions.color_steps(values)[0].tolist() == [0, 0, 5, 5, 0, 0]
    assert regions.color_steps(np.zeros((1, 1, 3))).tolist() == [[0]]


def test_enlarged_probabilities_sum_to_one():
    maps = np.random.default_rng(0).dirichlet(np.ones(3), (5, 7)).transpose(2, 0, 1)
    enlarged = regions.enlarge(maps, (23, 31))
    assert enlarged.shape == (3, 23, 31)
    np.testing.assert_allclose(enlarged.sum(0), 1, atol=1e-5)
    assert regions.enlarge(maps, (5, 7)) is maps


def test_baseline_has_fewer_regions_at_larger_scales(bands):
    n_regions = [len(np.unique(labels)) for labels in regions.baseline(bands[0])]
    assert len(n_regions) == len(regions.BASELINE_SCALES)
    assert n_regions == sorted(n_regions, reverse=True)
