import numpy as np
import pytest

from common.bsds import region_metrics
from tests.common.bsds.segmentations import best_iou, slow_scores


def scores(labels, *truths):
    regions = region_metrics.region_scores([np.array(labels)], list(map(np.array, truths)))
    return regions.covered[0] / regions.area, regions.pri[0], regions.vi[0]


def test_two_halves_against_one_region():
    # covering: 4 of 4 pixels overlap 2 / 4; 2 of 6 pairs agree; one bit is lost
    assert scores([[0, 0, 1, 1]], [[7, 7, 7, 7]]) == pytest.approx((1 / 2, 2 / 6, 1.0))


def test_covering_is_not_symmetric():
    # 3 pixels at 3 / 4, 1 pixel at 1 / 4; the other way around 4 pixels at 3 / 4
    assert scores([[0, 0, 0, 0]], [[0, 0, 0, 1]])[0] == pytest.approx((3 * 0.75 + 0.25) / 4)
    assert scores([[0, 0, 0, 1]], [[0, 0, 0, 0]])[0] == pytest.approx(0.75)


def test_renumbered_partition_scores_perfectly():
    labels = np.array([[4, 4, 9], [4, -2, 9]])
    assert scores(labels, labels * 7 + 10**12) == (1, 1, 0)


def test_single_pixel_has_rand_index_1():
    assert scores([[3]], [[0]]) == (1, 1, 0)


def random_maps(seed=0, n_scales=3, n_truths=4, shape=(11, 9)):
    rng = np.random.default_rng(seed)
    return [
        [rng.integers(0, rng.integers(1, 9), shape) for _ in range(n)] for n in (n_scales, n_truths)
    ]


def test_scores_match_loops_over_pixels_and_pairs():
    scales, truths = random_maps()
    regions = region_metrics.region_scores(scales, truths)
    for i, labels in enumerate(scales):
        slow = np.array([slow_scores(labels, truth) for truth in truths])  # (annotators, 3)
        assert regions.covered[i] == pytest.approx(slow[:, 0].sum(), rel=1e-12)
        assert (regions.pri[i], regions.vi[i]) == pytest.approx(slow[:, 1:].mean(0), rel=1e-12)
    best = 0.0
    for truth in truths:
        for segment in np.unique(truth):
            mask = truth == segment
            best += np.sum(mask) * max(best_iou(labels, mask) for labels in scales)
    assert regions.best == pytest.approx(best, rel=1e-12)
    assert regions.area == 4 * 99


def test_tables_and_sorting_give_equal_scores(monkeypatch):
    scales, truths = random_maps(n_scales=2)
    scales.append(
        np.arange(99).reshape(11, 9)
    )  # as many labels as pixels, so that pairs are sorted
    dense = region_metrics.region_scores(scales, truths)
    monkeypatch.setattr(region_metrics, "MAX_TABLE", 1)
    sparse = region_metrics.region_scores(scales, truths)
    assert np.array_equal(dense.covered, sparse.covered) and dense.best == sparse.best
    assert np.allclose(dense.pri, sparse.pri, rtol=1e-12)
    assert np.allclose(dense.vi, sparse.vi, rtol=1e-12)


def test_renumber_starts_at_0_and_keeps_the_partition():
    values = np.array([5, -3, 5, 2**40, -3])
    for shift in (0, 2**40 - 6):  # the second time in a small range
        new = region_metrics.renumber(np.where(values > 10, values - shift, values))
        assert sorted(set(new.tolist())) == [0, 1, 2]
        assert new[0] == new[2] and new[1] == new[4] and len(set(new[[0, 1, 3]])) == 3
