import numpy as np
import pytest

from common import bsds
from common.datasets import segmentations
from common.datasets.download import data_root


def test_each_human_segment_has_its_best_iou():
    truth = [[0, 0, 1, 1]]
    predicted = [[0, 0, 0, 1]]
    # segment 0: 2 of 3 pixels; segment 1: 1 of 2 + 1 - 1 (piece 1), against 1 of 4 (piece 0)
    assert bsds.overlaps(predicted, [truth]) == [[2 / 3, 1 / 2]]


def test_human_segments_may_share_a_predicted_segment():
    assert bsds.overlaps([[5, 5, 5, 5]], [[[0, 1, 1, 1]]]) == [[1 / 4, 3 / 4]]


def test_prediction_is_split_into_connected_components():
    truth = [[[0, 1, 2]]]
    predicted = [[7, 3, 7]]  # the 7s are two components
    assert bsds.overlaps(predicted, truth) == [[1.0, 1.0, 1.0]]
    assert bsds.overlaps(predicted, truth, connectivity=0) == [[1 / 2, 1.0, 1 / 2]]


def test_scores_are_means_over_segments_of_all_images():
    predictions = [np.zeros((1, 4), int), np.zeros((1, 2), int)]
    truths = [
        [np.array([[0, 0, 1, 1]]), np.array([[0, 1, 2, 3]])],  # 1/2 twice; 1/4 four times
        [np.array([[0, 0]])],  # 1
    ]
    scores = bsds.best_overlap_miou(predictions, truths)
    assert scores["all"] == pytest.approx((2 / 2 + 4 / 4 + 1) / 7)
    assert scores["fine"] == pytest.approx((4 / 4 + 1) / 5)  # the second annotator
    assert scores["coarse"] == pytest.approx((2 / 2 + 1) / 3)  # the first
    expected = (scores["all"] + scores["fine"] + scores["coarse"]) / 3
    assert scores["mean"] == pytest.approx(expected)


def test_renumbered_segmentation_scores_1():
    truth = np.array([[4, 4, 9], [4, 2, 9]])
    scores = bsds.best_overlap_miou([truth * 7 - 3], [[truth]])
    assert scores == {"all": 1.0, "fine": 1.0, "coarse": 1.0, "mean": 1.0}


def test_components_are_numbered_row_by_row():
    labels = [[1, 0, 1], [0, 1, 0]]
    assert bsds.components(labels, 4).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert bsds.components(labels, 8).tolist() == [[0, 1, 0], [1, 0, 1]]
    assert bsds.components(np.zeros((3, 1), int)).tolist() == [[0], [0], [0]]


def test_components_match_a_slow_flood_fill():
    labels = np.random.default_rng(0).integers(0, 3, (12, 9))
    for connectivity in (4, 8):
        filled, n = np.full(labels.shape, -1), 0
        for start in np.ndindex(labels.shape):
            if filled[start] >= 0:
                continue
            stack = [start]
            while stack:
                y, x = stack.pop()
                filled[y, x] = n
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        near = y + dy, x + dx
                        if connectivity == 4 and dy and dx:
                            continue
                        if not (0 <= near[0] < 12 and 0 <= near[1] < 9) or filled[near] >= 0:
                            continue
                        if labels[near] == labels[y, x]:
                            stack.append(near)
            n += 1
        assert np.array_equal(bsds.components(labels, connectivity), filled)


@pytest.mark.parametrize(
    ("predicted", "truths", "reason"),
    [
        ([[0, 0]], [], "no ground truth"),
        ([[0, 0]], [[[0], [0]]], r"the prediction is \(1, 2\), a ground truth \(2, 1\)"),
        ([[0.5, 0]], [[[0, 0]]], "float64: expected"),
        ([0, 0], [[[0, 0]]], r"\(2,\) of int64: expected"),
        (np.zeros((0, 2), int), [np.zeros((0, 2), int)], r"\(0, 2\) of int64: expected"),
    ],
)
def test_overlaps_refuses_invalid_maps(predicted, truths, reason):
    with pytest.raises(ValueError, match=reason):
        bsds.overlaps(predicted, truths)


def test_best_overlap_without_images_is_refused():
    with pytest.raises(ValueError, match="no image"):
        bsds.best_overlap_miou([], [])


def test_blank_segmentation_of_val_has_the_known_score():
    # 0.0510 for "all" on val, computed independently with the code of the paper's authors
    if not (data_root() / "BSDS500/data/groundTruth/val").is_dir():
        pytest.skip("BSDS500 val is not below DATA_ROOT")
    val = segmentations.load("bsds500", "val")
    truths = [val.ground_truths(i) for i in range(len(val))]
    scores = bsds.best_overlap_miou([np.zeros_like(truth[0]) for truth in truths], truths)
    assert scores["all"] == pytest.approx(0.0510, abs=5e-5)
