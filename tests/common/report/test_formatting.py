import json
from pathlib import Path

import pytest

from common.report import formatting

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("acc", "Accuracy"),
        ("nmi", "NMI"),
        ("ari", "ARI"),
        ("ami", "AMI"),
        ("purity", "Purity"),
        ("recall_at_1", "Recall@1"),
        ("recall_at_8", "Recall@8"),
        ("map_at_r", "MAP@R"),
        ("r_precision", "R-Precision"),
        ("retrieval_map", "mAP"),
        ("covering_ods", "Covering (ODS)"),
        ("covering_ois", "Covering (OIS)"),
        ("covering_best", "Covering (best)"),
        ("pri_ods", "PRI (ODS)"),
        ("vi_ods", "VI (ODS) ↓"),
        ("f_ods", "Boundary F (ODS)"),
        ("precision_ois", "Boundary precision (OIS)"),
        ("recall_ods", "Boundary recall (ODS)"),
        ("miou", "mIoU"),
        ("mean", "mIoU (mean)"),
        ("miou_fine", "mIoU (fine)"),
        ("pixel_accuracy", "Pixel accuracy"),
        ("weighted_iou", "Frequency-weighted IoU"),
        ("knn", "k-NN"),
        ("knn_20", "k-NN (k = 20)"),
        ("linear", "Linear probe"),
        ("n", "Images"),
        ("n_clusters", "Clusters"),
        ("n_regions", "Regions per image"),
        ("soft_ncut", "Soft N-cut"),
        ("lr", "Learning rate"),
        ("images_per_second", "Images per second"),
        ("an_unknown_score", "An unknown score"),
    ],
)
def test_display_name_is_the_notation_of_the_literature(key, expected):
    assert formatting.display_name(key) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1797, "1,797"),
        (0, "0"),
        (0.0, "0"),
        (1.36e-16, "0"),
        (-2.2e-17, "0"),
        (1.0, "1.000"),
        (0.9999999999999998, "1.000"),
        (0.8333, "0.833"),
        (-0.0042, "-0.0042"),
        (0.004327687, "0.00433"),
        (2.115e-9, "2.11e-09"),
        (12.9671, "12.97"),
        (165.83, "165.8"),
        (2032.94, "2,033"),
        (532.0, "532"),
        (1.5e7 + 0.5, "1.5e+07"),
    ],
)
def test_format_number_rounds_sensibly(value, expected):
    assert formatting.format_number(value) == expected


@pytest.mark.parametrize(
    ("key", "value", "deviation", "expected"),
    [
        ("nmi", 0.97382, 0.00267, "0.9738 ± 0.0027"),
        ("nmi", 0.72995, 0.03052, "0.730 ± 0.031"),
        ("nmi", 0.97382, 1.36e-16, "0.974 ± 0"),
        ("nmi", 0.97382, 0.0, "0.974 ± 0"),
        ("loss", 1234.5, 12.3, "1,234 ± 12"),
        ("vi_ods", 1.654, None, "1.654 bits"),
        ("vi_ods", 1.654, 0.012, "1.654 ± 0.012 bits"),
        ("n_regions", 38.8333, None, "38.8"),
        ("n_regions", 38.0, None, "38"),
        ("n_clusters", 1000, None, "1,000"),
    ],
)
def test_format_score_has_deviation_and_unit(key, value, deviation, expected):
    assert formatting.format_score(key, value, deviation) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(5.8, "6 s"), (74.3, "1 min 14 s"), (7322, "2 h 2 min"), ("x", ""), (None, "")],
)
def test_format_duration_has_two_units_at_most(seconds, expected):
    assert formatting.format_duration(seconds) == expected


def test_is_number_excludes_booleans_nan_and_infinity():
    values = json.loads('[1, 0.5, true, NaN, Infinity, -Infinity, null, "1"]')
    assert [formatting.is_number(value) for value in values] == [True, True] + 6 * [False]
