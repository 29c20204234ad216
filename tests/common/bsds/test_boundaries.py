import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from common.bsds import boundaries
from common.datasets import formats, segmentations
from common.datasets.download import data_root


def mask(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def draw(mask):
    return ["".join("#" if pixel else "." for pixel in row) for row in mask]


def test_boundary_is_at_the_upper_left_of_changes():
    labels = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 1]])
    # above and left of the 1s; the pixel at their corner is removed by thinning
    assert draw(boundaries.of_labels(labels)) == ["..#", ".#.", ".#."]


def test_single_region_has_no_boundary():
    assert not boundaries.of_labels(np.zeros((3, 4), int)).any()
    assert not boundaries.of_labels(np.zeros((1, 1), int)).any()


def test_bar_is_thinned_to_a_line():
    bar = np.pad(np.ones((3, 9), bool), 2)
    thinned = boundaries.thin(bar)
    assert thinned.sum(axis=0).max() == 1 and not thinned[[0, 1, 2, 4, 5, 6]].any()


def test_thinning_keeps_ring_and_line():
    ring = mask(".###.", "#...#", "#...#", ".###.")
    line = mask("#....", ".#...", "..###")
    for shape in (ring, line):
        assert np.array_equal(boundaries.thin(shape), shape)


def test_thinning_matches_a_slow_loop():
    blobs = np.random.default_rng(0).random((9, 13)) < 0.7
    assert np.array_equal(boundaries.thin(blobs), slow_thin(blobs))


def slow_thin(mask):
    """Guo and Hall's conditions, pixel by pixel, neighbors numbered as in their paper."""
    mask = np.pad(mask, 1).astype(int)
    around = [(0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1)]
    changed = True
    while changed:
        changed = False
        for half in (0, 1):
            removed = []
            for y, x in zip(*np.nonzero(mask), strict=True):
                p = [None] + [mask[y + dy, x + dx] for dy, dx in around]  # p[1] to p[8]
                p.append(p[1])
                pieces = sum(
                    p[2 * i - 1] == 0 and (p[2 * i] or p[2 * i + 1]) > 0 for i in range(1, 5)
                )
                n1 = sum(p[2 * i - 1] or p[2 * i] for i in range(1, 5))
                n2 = sum(p[2 * i] or p[2 * i + 1] for i in range(1, 5))
                side = [
                    (p[2] or p[3] or not p[8]) and p[1],
                    (p[6] or p[7] or not p[4]) and p[5],
                ][half]
                if pieces == 1 and 2 <= min(n1, n2) <= 3 and not side:
                    removed.append((y, x))
            for pixel in removed:
                mask[pixel] = 0
                changed = True
    return mask[1:-1, 1:-1].astype(bool)


def test_match_is_one_to_one_within_the_radius():
    a, b = mask("##....", "......"), mask("....#.", "#.....")
    matched = [draw(pixels) for pixels in boundaries.match(a, b, 1.0)]
    assert matched == [["#.....", "......"], ["......", "#....."]]
    # the second pixel of a is sqrt(2) from it, and 3 from the other
    assert boundaries.match(a, b, 3.0)[0].sum() == 2


def test_match_prefers_more_pairs_to_near_pairs():
    a, b = mask(".##."), mask("#.#.")
    # the third pixel of a matches the third of b, so that the second matches the first
    assert list(map(draw, boundaries.match(a, b, 1.0))) == [[".##."], ["#.#."]]
    a, b = mask("..##"), mask(".##.")
    # if the third pixels matched each other, the fourth of a would have no match
    assert list(map(draw, boundaries.match(a, b, 1.0))) == [["..##"], [".##."]]


@pytest.mark.parametrize("seed", range(8))
def test_match_is_as_large_as_an_optimal_assignment(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 17, 23)) < 0.05 * rng.integers(1, 6, (2, 1, 1))
    radius = float(rng.choice([1.0, 1.5, 2.9]))
    matched = boundaries.match(a, b, radius)
    gaps = np.argwhere(a)[:, None] - np.argwhere(b)
    distances = np.hypot(*np.moveaxis(gaps, 2, 0))
    near = distances <= radius
    rows, columns = linear_sum_assignment(near, maximize=True)
    assert matched[0].sum() == matched[1].sum() == near[rows, columns].sum()
    assert not (matched[0] & ~a).any() and not (matched[1] & ~b).any()
    swapped = boundaries.match(b, a, radius)
    assert swapped[0].sum() == matched[0].sum()


def test_empty_map_has_no_match():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    for a, b in ((empty, full), (full, empty), (empty, empty)):
        assert not np.any(boundaries.match(a, b, 2.0))


def test_counts_sum_recall_over_annotators_and_precision_needs_any():
    predicted = mask("#..#....")
    truths = [mask("#......."), mask("#......#")]
    # 1 of 1 and 1 of 2 are recalled; one of the two predicted is correct and counts once
    assert boundaries.counts(predicted, truths, 0.1) == (2, 3, 1, 2)


def test_max_distance_is_a_fraction_of_the_diagonal():
    predicted, truth = np.zeros((2, 30, 40), bool)
    predicted[3, 3] = truth[3, 7] = True  # 4 pixels of 50
    assert boundaries.counts(predicted, [truth], 0.08) == (1, 1, 1, 1)
    assert boundaries.counts(predicted, [truth], 0.0799) == (0, 1, 0, 1)


def test_boundaries_of_bsds_labels_equal_its_boundaries():
    if not (data_root() / "BSDS500/data/groundTruth/val").is_dir():
        pytest.skip("BSDS500 val is not below DATA_ROOT")
    val = segmentations.load("bsds500", "val")
    for path in val.ground_truth_paths[::20]:
        for cell in formats.mat(path, "groundTruth").ravel():
            labels, edges = (cell[key][0, 0] for key in ("Segmentation", "Boundaries"))
            assert np.array_equal(boundaries.of_labels(labels), edges > 0)
