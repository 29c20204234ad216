import itertools

import numpy as np
import pytest

from common.bsds import region_metrics


def scores(labels, *truths):
    found = region_metrics.region_scores([np.array(labels)], [np.array(truth) for truth in truths])
    return found.covered[0] / found.area, found.pri[0], found.vi[0]


def test_two_halves_against_a_whole():
    # covering: 4 of 4 pixels overlap 2 / 4; 2 of 6 pairs agree; one bit is lost
    assert scores([[0, 0, 1, 1]], [[7, 7, 7, 7]]) == pytest.approx((1 / 2, 2 / 6, 1.0))


def test_covering_asks_for_the_human_segments_and_is_not_symmetric():
    # 3 pixels at 3 / 4, 1 pixel at 1 / 4; the other way round 4 pixels at 3 / 4
    assert scores([[0, 0, 0, 0]], [[0, 0, 0, 1]])[0] == pytest.approx((3 * 0.75 + 0.25) / 4)
    assert scores([[0, 0, 0, 1]], [[0, 0, 0, 0]])[0] == pytest.approx(0.75)


def test_the_same_partition_is_perfect_whatever_its_numbers():
    labels = np.array([[4, 4, 9], [4, -2, 9]])
    assert scores(labels, labels * 7 + 10**12) == (1, 1, 0)


def test_one_pixel_has_no_pair_to_disagree_about():
    assert scores([[3]], [[0]]) == (1, 1, 0)


def stack(seed=0, n_scales=3, n_truths=4, shape=(11, 9)):
    rng = np.random.default_rng(seed)
    return [
        [rng.integers(0, rng.integers(1, 9), shape) for _ in range(n)] for n in (n_scales, n_truths)
    ]


def test_all_scores_agree_with_loops_over_pixels_and_pairs():
    scales, truths = stack()
    found = region_metrics.region_scores(scales, truths)
    for i, labels in enumerate(scales):
        slow = [slow_scores(labels.ravel(), truth.ravel()) for truth in truths]
        assert found.covered[i] == pytest.approx(sum(one[0] for one in slow), rel=1e-12)
        assert found.pri[i] == pytest.approx(np.mean([one[1] for one in slow]), rel=1e-12)
        assert found.vi[i] == pytest.approx(np.mean([one[2] for one in slow]), rel=1e-12)
    best = 0.0
    for truth in truths:
        for segment in np.unique(truth):
            best += np.sum(truth == segment) * max(
                overlap(labels == part, truth == segment)
                for labels in scales
                for part in np.unique(labels)
            )
    assert found.best == pytest.approx(best, rel=1e-12)
    assert found.area == 4 * 99


def overlap(a, b):
    return np.sum(a & b) / np.sum(a | b)


def slow_scores(labels, truth):
    """Area covered, Rand index over all pairs of pixels, variation of information in bits."""
    covered = sum(
        np.sum(truth == segment)
        * max(overlap(labels == part, truth == segment) for part in np.unique(labels))
        for segment in np.unique(truth)
    )
    pairs = list(itertools.combinations(range(len(labels)), 2))
    agree = sum((labels[i] == labels[j]) == (truth[i] == truth[j]) for i, j in pairs)
    vi = 0.0
    for part, segment in itertools.product(np.unique(labels), np.unique(truth)):
        both = np.mean((labels == part) & (truth == segment))
        if both:
            a, b = np.mean(labels == part), np.mean(truth == segment)
            vi -= both * (np.log2(both / a) + np.log2(both / b))
    return covered, agree / len(pairs), vi


def test_tables_and_sorts_count_the_same(monkeypatch):
    scales, truths = stack(n_scales=2)
    scales.append(np.arange(99).reshape(11, 9))  # as many labels as pixels: its pairs are sorted
    dense = region_metrics.region_scores(scales, truths)
    monkeypatch.setattr(region_metrics, "DENSE", 1)
    sparse = region_metrics.region_scores(scales, truths)
    assert np.array_equal(dense.covered, sparse.covered) and dense.best == sparse.best
    assert np.allclose(dense.pri, sparse.pri, rtol=1e-12)
    assert np.allclose(dense.vi, sparse.vi, rtol=1e-12)


def test_numbers_start_at_zero_and_keep_the_partition():
    values = np.array([5, -3, 5, 2**40, -3])
    for shift in (0, 2**40 - 6):  # the second has a short range
        found = region_metrics.renumber(np.where(values > 10, values - shift, values))
        assert sorted(set(found.tolist())) == [0, 1, 2]
        assert found[0] == found[2] and found[1] == found[4] and len(set(found[[0, 1, 3]])) == 3
