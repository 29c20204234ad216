import numpy as np
import pytest

from common import bsds
from common.bsds import boundaries
from tests.common.bsds.segmentations import best_iou, halves, slow_scores


def test_region_scores_are_means_over_annotators():
    # against itself 1, 1, 0; against one region: overlap 1 / 2, 2 of 6 pairs, one bit
    scores = bsds.region_scores([[0, 0, 1, 1]], [[[5, 5, 9, 9]], [[0, 0, 0, 0]]])
    assert scores == pytest.approx({"covering": 0.75, "pri": (1 + 1 / 3) / 2, "vi": 0.5})


def random_images(seed=0, n=4, n_scales=3):
    """Images of two sizes, with one to three annotators each, who nearly agree."""
    rng = np.random.default_rng(seed)
    predictions, truths = [], []
    for i in range(n):
        shape = (9, 12) if i % 2 else (12, 9)
        coarse = rng.integers(0, 3, (3, 3)).repeat(shape[0] // 3, 0).repeat(shape[1] // 3, 1)
        truths.append([coarse * (1 + rng.integers(0, 2, shape)) for _ in range(1 + i % 3)])
        predictions.append(
            [np.where(rng.random(shape) < p, 7, coarse) for p in rng.permutation((0.0, 0.1, 0.4))]
        )
    return [scales[:n_scales] for scales in predictions], truths


def test_benchmark_aggregates_like_the_official_tool():
    predictions, truths = random_images()
    scores, slow = bsds.benchmark(predictions, truths), slow_benchmark(predictions, truths)
    assert scores == pytest.approx(slow, rel=1e-9)
    assert scores["covering_ods"] < scores["covering_ois"] <= scores["covering_best"]
    assert scores["vi_ods"] >= scores["vi_ois"] and scores["pri_ods"] <= scores["pri_ois"]


def slow_benchmark(predictions, truths):
    """Loops over images, scales and annotators; only the matching of boundary pixels is ours."""
    n, n_scales = len(truths), len(predictions[0])
    covered, area = np.zeros((n, n_scales)), np.zeros(n)
    pri, vi, best = np.zeros((n, n_scales)), np.zeros((n, n_scales)), 0.0
    counts = np.zeros((n, n_scales, 4))
    for i, (scales, annotators) in enumerate(zip(predictions, truths, strict=True)):
        for truth in annotators:
            area[i] += truth.size
            best += sum(
                np.sum(truth == segment)
                * max(best_iou(labels, truth == segment) for labels in scales)
                for segment in np.unique(truth)
            )
        for s, labels in enumerate(scales):
            slow = np.array([slow_scores(labels, truth) for truth in annotators])
            covered[i, s], pri[i, s], vi[i, s] = slow[:, 0].sum(), *slow[:, 1:].mean(axis=0)
            edges = [boundaries.of_labels(truth) for truth in annotators]
            counts[i, s] = boundaries.counts(boundaries.of_labels(labels), edges)
    scores = {
        "covering_ods": max(covered[:, s].sum() / area.sum() for s in range(n_scales)),
        "covering_ois": sum(covered[i].max() for i in range(n)) / area.sum(),
        "covering_best": best / area.sum(),
        "pri_ods": max(np.mean(pri[:, s]) for s in range(n_scales)),
        "pri_ois": np.mean([max(pri[i]) for i in range(n)]),
        "vi_ods": min(np.mean(vi[:, s]) for s in range(n_scales)),
        "vi_ois": np.mean([min(vi[i]) for i in range(n)]),
        "f_ods": 0.0,
    }
    curve = [recall_precision(counts[:, s].sum(axis=0)) for s in range(n_scales)]
    for (r0, p0), (r1, p1) in zip(curve, curve[1:], strict=False):
        for t in np.linspace(0, 1, 100):
            r, p = r0 + t * (r1 - r0), p0 + t * (p1 - p0)
            if f_measure(r, p) > scores["f_ods"]:
                scores |= {"f_ods": f_measure(r, p), "precision_ods": p, "recall_ods": r}
    best_counts = np.zeros(4)
    for i in range(n):
        best_counts += max(counts[i], key=lambda count: f_measure(*recall_precision(count)))
    r, p = recall_precision(best_counts)
    return scores | {"f_ois": f_measure(r, p), "precision_ois": p, "recall_ois": r}


def recall_precision(count):
    return count[0] / max(count[1], 1), count[2] / max(count[3], 1)


def f_measure(r, p):
    return 2 * r * p / (r + p) if r + p else 0.0


def test_ground_truth_scores_perfectly():
    truth = halves(4)
    scores = bsds.benchmark([[truth]], [[truth + 3]])
    vi = {name: scores.pop(name) for name in ("vi_ods", "vi_ois")}
    assert set(scores.values()) == {1.0} and set(vi.values()) == {0.0}


def test_ods_has_one_scale_for_all_images_and_ois_one_per_image():
    truths = [[halves(4)], [halves(0)]]  # the second has one region
    scales = [halves(4), halves(0)]
    scores = bsds.benchmark([scales, scales], truths, with_boundaries=False)
    # either scale: 1 for one image, 1 / 2 for the other
    assert (scores["covering_ods"], scores["covering_ois"]) == (0.75, 1.0)
    assert (scores["vi_ods"], scores["vi_ois"]) == (0.5, 0.0)
    assert "f_ods" not in scores


def test_f_ods_is_interpolated_between_scales():
    # recall 1 at precision 1 / 2, and the other way around: halfway both are 3 / 4
    counts = np.array([[4, 4, 2, 4], [2, 4, 2, 2]])
    regions = bsds.per_image_counts([halves(4)] * 2, [halves(4)], with_boundaries=False).regions
    scores = bsds.summary([bsds.ImageCounts(regions, counts)])
    assert scores["f_ois"] == pytest.approx(2 / 3)
    assert scores["f_ods"] == pytest.approx(0.75, abs=1e-4)  # none of the 100 points is halfway


def test_f_without_boundaries_is_0():
    scores = bsds.benchmark([[halves(0)]], [[halves(4)]])
    assert (scores["f_ods"], scores["precision_ods"], scores["recall_ois"]) == (0, 0, 0)


def test_given_boundaries_are_used():
    truth, empty = halves(4), np.zeros((6, 8), bool)
    counts = bsds.per_image_counts([truth], [truth], True, [empty], [boundaries.of_labels(truth)])
    assert counts.boundaries.tolist() == [[0, 6, 0, 0]]
    counts = bsds.per_image_counts([truth], [truth], True, None, [empty])
    assert counts.boundaries.tolist() == [[0, 0, 0, 6]]


@pytest.mark.parametrize(
    ("predictions", "truths", "reason"),
    [
        ([], [], "no image"),
        ([[halves(1)]], [[]], "no ground truth"),
        ([[]], [[halves(1)]], "no prediction"),
        ([[halves(1, (2, 3))]], [[halves(1)]], r"a map is \(2, 3\), the first .* \(6, 8\)"),
        ([[halves(1) / 2]], [[halves(1)]], "a prediction is .* of float64"),
        ([[halves(1)], [halves(1)] * 2], [[halves(1)]] * 2, r"\[1, 2\] scales"),
    ],
)
def test_benchmark_refuses_invalid_maps(predictions, truths, reason):
    with pytest.raises(ValueError, match=reason):
        bsds.benchmark(predictions, truths)
