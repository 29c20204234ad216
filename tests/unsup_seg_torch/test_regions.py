"""From probabilities to regions and their hierarchy."""

import numpy as np
import pytest

from unsup_seg_torch import config, regions


@pytest.fixture
def scene():
    """Three bands of colour with noise, the first two of them one label of two."""
    truth = np.repeat([0, 1, 2], 16)[:, None].repeat(40, 1)
    colours = np.array([[60, 80, 60], [90, 110, 95], [200, 150, 60]])[truth]
    image = colours + np.random.default_rng(0).normal(0, 3, colours.shape)
    labels = np.array([0, 0, 1])[truth]
    probabilities = np.where(np.arange(2)[:, None, None] == labels, 0.9, 0.1)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), probabilities, truth, labels


def alike(found, expected):
    """Whether regions correspond one to one but for a border of a pixel or two."""
    table = np.zeros((found.max() + 1, expected.max() + 1))
    np.add.at(table, (found.ravel(), expected.ravel()), 1)
    rows, columns = table.argmax(0), table.argmax(1)
    one_to_one = len(rows) == len(columns) and (columns[rows] == np.arange(len(rows))).all()
    return one_to_one and table.max(0).sum() > 0.95 * found.size


def same(found, expected):
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    return len(pairs) == len(np.unique(found)) == len(np.unique(expected))


def test_regions_of_colour_join_to_the_labels_before_they_are_one(scene):
    image, probabilities, truth, labels = scene
    found = regions.hierarchy(probabilities, image, config.Model(regions="felzenszwalb"))
    assert same(found.cut(0) * 3 + truth, found.cut(0)), "the finest do not cross an edge"
    assert alike(found.regions(2), labels)
    assert found.regions(1).max() == 0


def test_pieces_of_the_labels_alone_have_no_finer_regions(scene):
    image, probabilities, _, labels = scene
    found = regions.hierarchy(probabilities, image, config.Model(regions="labels"))
    assert same(found.cut(0), labels)


def test_a_label_decides_where_colours_do_not(scene):
    image, _, truth, _ = scene
    gray = np.full_like(image, 128)
    gray[20:] = 140  # an edge of little contrast inside the second band
    probabilities = np.where(np.arange(2)[:, None, None] == (truth == 2), 0.95, 0.05)
    labels = regions.hierarchy(probabilities, gray, config.Model(regions="labels"))
    assert same(labels.regions(2), truth == 2)


def test_a_picture_of_twice_the_size_has_the_same_regions(scene, monkeypatch):
    image, probabilities, _, _ = scene
    monkeypatch.setattr(regions, "SIDE", max(image.shape))
    small = regions.hierarchy(probabilities, image, config.Model())
    larger = [np.repeat(np.repeat(each, 2, -2), 2, -1) for each in (probabilities, image[..., 0])]
    image = np.repeat(np.repeat(image, 2, 0), 2, 1)
    large = regions.hierarchy(larger[0], image, config.Model())
    assert large.labels.shape == image.shape[:2]
    assert alike(large.regions(2)[::2, ::2], small.regions(2))


def test_a_height_asks_for_contrast_as_the_picture_goes(scene):
    image, probabilities, truth, _ = scene
    halved = np.rint(64 + image / 2).astype(np.uint8)
    alone = np.ones((1, *truth.shape), np.float32)
    heights = [
        regions.hierarchy(alone, each, config.Model()).heights.max() for each in (image, halved)
    ]
    # costs are squares of contrast, relative to it; without that the ratio were 4
    assert 1.5 < heights[0] / heights[1] < 2.7


def test_a_step_is_seen_on_both_of_its_sides():
    values = np.zeros((4, 6, 2))
    values[:, 3:] = (3, 4)  # a distance of 5
    assert regions.steps(values)[0].tolist() == [0, 0, 5, 5, 0, 0]
    assert regions.steps(np.zeros((1, 1, 3))).tolist() == [[0]]


def test_enlarged_probabilities_stay_probabilities():
    maps = np.random.default_rng(0).dirichlet(np.ones(3), (5, 7)).transpose(2, 0, 1)
    found = regions.enlarge(maps, (23, 31))
    assert found.shape == (3, 23, 31)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    assert regions.enlarge(maps, (5, 7)) is maps


def test_the_baseline_has_fewer_regions_at_larger_scales(scene):
    n_regions = [len(np.unique(labels)) for labels in regions.baseline(scene[0])]
    assert len(n_regions) == len(regions.BASELINE_SCALES)
    assert n_regions == sorted(n_regions, reverse=True)
