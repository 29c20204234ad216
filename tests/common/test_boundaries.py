import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from common.bsds import boundaries
from common.datasets import segmentations
from common.datasets.download import data_root


def mask(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def drawn(found):
    return ["".join("#" if pixel else "." for pixel in row) for row in found]


def test_a_boundary_is_where_a_pixel_differs_from_those_after_it():
    labels = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 1]])
    # above and at the left of the 1; the pixel of the corner between is thinned away
    assert drawn(boundaries.of_labels(labels)) == ["..#", ".#.", ".#."]


def test_one_region_has_no_boundary():
    assert not boundaries.of_labels(np.zeros((3, 4), int)).any()
    assert not boundaries.of_labels(np.zeros((1, 1), int)).any()


def test_a_bar_is_thinned_to_a_line():
    bar = np.pad(np.ones((3, 9), bool), 2)
    found = boundaries.thin(bar)
    assert found.sum(axis=0).max() == 1 and not found[[0, 1, 2, 4, 5, 6]].any()


def test_thinning_keeps_a_ring_and_a_line():
    ring = mask(".###.", "#...#", "#...#", ".###.")
    line = mask("#....", ".#...", "..###")
    for shape in (ring, line):
        assert np.array_equal(boundaries.thin(shape), shape)


def test_thinning_agrees_with_a_slow_one():
    blobs = np.random.default_rng(0).random((9, 13)) < 0.7
    assert np.array_equal(boundaries.thin(blobs), slow_thin(blobs))


def slow_thin(picture):
    """Guo and Hall's conditions, pixel by pixel, with the neighbours' numbers of their paper."""
    picture = np.pad(picture, 1).astype(int)
    around = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]
    changed = True
    while changed:
        changed = False
        for half in (0, 1):
            gone = []
            for y, x in zip(*np.nonzero(picture), strict=True):
                p = [None] + [picture[y + dy, x + dx] for dy, dx in around]  # p[1] to p[8]
                p.append(p[1])
                lines = sum(
                    p[2 * i - 1] == 0 and (p[2 * i] or p[2 * i + 1]) > 0 for i in range(1, 5)
                )
                n1 = sum(p[2 * i - 1] or p[2 * i] for i in range(1, 5))
                n2 = sum(p[2 * i] or p[2 * i + 1] for i in range(1, 5))
                side = [
                    (p[2] or p[3] or not p[8]) and p[1],
                    (p[6] or p[7] or not p[4]) and p[5],
                ][half]
                if lines == 1 and 2 <= min(n1, n2) <= 3 and not side:
                    gone.append((y, x))
            for place in gone:
                picture[place] = 0
                changed = True
    return picture[1:-1, 1:-1].astype(bool)


def test_partners_are_one_to_one_within_the_radius():
    a, b = mask("##....", "......"), mask("....#.", "#.....")
    found = [drawn(one) for one in boundaries.match(a, b, 1.0)]
    assert found == [["#.....", "......"], ["......", "#....."]]
    # the second of a is sqrt(2) from it, and 3 from the other
    assert boundaries.match(a, b, 3.0)[0].sum() == 2


def test_a_nearer_partner_is_given_up_where_more_pixels_find_one():
    a, b = mask(".##."), mask("#.#.")
    # the third pixel of a is on the third of b; so the second goes to the first
    assert [drawn(one) for one in boundaries.match(a, b, 1.0)] == [[".##."], ["#.#."]]
    a, b = mask("..##"), mask(".##.")
    # the third are on each other, and the fourth would have none; the third goes to the second
    assert [drawn(one) for one in boundaries.match(a, b, 1.0)] == [["..##"], [".##."]]


@pytest.mark.parametrize("seed", range(8))
def test_a_match_is_as_large_as_an_exhaustive_assignment(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 17, 23)) < 0.05 * rng.integers(1, 6, (2, 1, 1))
    radius = float(rng.choice([1.0, 1.5, 2.9]))
    found = boundaries.match(a, b, radius)
    gaps = np.argwhere(a)[:, None] - np.argwhere(b)
    distances = np.hypot(*np.moveaxis(gaps, 2, 0))
    near = distances <= radius
    rows, columns = linear_sum_assignment(near, maximize=True)
    assert found[0].sum() == found[1].sum() == near[rows, columns].sum()
    assert not (found[0] & ~a).any() and not (found[1] & ~b).any()
    swapped = boundaries.match(b, a, radius)
    assert swapped[0].sum() == found[0].sum()


def test_an_empty_map_matches_nothing():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    for a, b in ((empty, full), (full, empty), (empty, empty)):
        assert not np.any(boundaries.match(a, b, 2.0))


def test_recall_is_pooled_over_annotators_and_precision_takes_any():
    predicted = mask("#..#....")
    truths = [mask("#......."), mask("#......#")]
    # found 1 of 1 and 1 of 2; of the two predicted one is right, and counts once
    assert boundaries.counts(predicted, truths, 0.1) == (2, 3, 1, 2)


def test_the_distance_is_a_share_of_the_diagonal():
    predicted, truth = np.zeros((2, 30, 40), bool)
    predicted[3, 3] = truth[3, 7] = True  # 4 pixels of 50
    assert boundaries.counts(predicted, [truth], 0.08) == (1, 1, 1, 1)
    assert boundaries.counts(predicted, [truth], 0.0799) == (0, 1, 0, 1)


def test_the_boundaries_of_bsds_come_out_of_its_segmentations_pixel_for_pixel():
    from common.datasets import formats

    if not (data_root() / "BSDS500/data/groundTruth/val").is_dir():
        pytest.skip("BSDS500 val is not below DATA_ROOT")
    val = segmentations.load("bsds500", "val")
    for path in val.ground_truth_paths[::20]:
        for cell in formats.mat(path, "groundTruth").ravel():
            labels, edges = (cell[key][0, 0] for key in ("Segmentation", "Boundaries"))
            assert np.array_equal(boundaries.of_labels(labels), edges > 0)
