import pytest

from common import report
from common.report import scores
from tests.common.report.page import Page, write_json

RETRIEVAL = {
    "recall_at_1": 0.987,
    "map_at_r": 0.976,
    "n_unmatched": 0,
    "nmi": 0.97382,
    "nmi_sd": 0.00267,
    "ari": 1.0,
    "ari_sd": 1.36e-16,
    "n": 450,
    "baseline": {"name": "raw pixels", "recall_at_1": 0.967, "nmi": 0.72995, "nmi_sd": 0.03052},
}


def texts(values):
    """(name, [(heading, text)]) of each tile."""
    return [
        (tile["name"], [(heading, score.text) for heading, score in tile["values"]])
        for tile in scores.tiles(values)
    ]


def test_deviations_are_in_the_tiles_of_their_means():
    assert texts(RETRIEVAL) == [
        ("Recall@1", [("this run", "0.987"), ("raw pixels", "0.967")]),
        ("MAP@R", [("this run", "0.976")]),
        ("NMI", [("this run", "0.9738 ± 0.0027"), ("raw pixels", "0.730 ± 0.031")]),
        ("ARI", [("this run", "1.000 ± 0")]),
    ]


@pytest.mark.parametrize("suffix", ["_sd", "_std", "_deviation"])
def test_deviation_without_its_mean_is_a_score(suffix):
    assert list(scores.read({"acc": 0.5, f"acc{suffix}": 0.1})) == ["acc"]
    assert list(scores.read({f"acc{suffix}": 0.1})) == [f"acc{suffix}"]


def test_all_scores_are_rows_and_conditions_are_columns():
    values = {
        "n": 100,
        "acc": 0.8,
        "linear": {"conv1": 0.7, "conv2": 0.75},
        "held_out": {"acc": 0.78, "n": 20},
        "baseline": {"name": "k-means on pixels", "acc": 0.5, "linear": {"conv1": 0.6}},
    }
    table = scores.table(values)
    assert table["headings"] == ("this run", "held out", "k-means on pixels")
    rows = [(name, [score and score.text for score in row]) for name, row in table["rows"]]
    assert rows == [
        ("Images", ["100", "20", None]),
        ("Accuracy", ["0.800", "0.780", "0.500"]),
        ("Linear probe: conv1", ["0.700", None, "0.600"]),
        ("Linear probe: conv2", ["0.750", None, None]),
    ]


def test_tiles_are_the_four_most_important_scores():
    values = {"n": 3, "purity": 0.9, "knn": 0.9, "ari": 0.7, "nmi": 0.8, "acc": 0.9, "linear": 0.9}
    assert [name for name, _ in texts(values)] == ["Accuracy", "NMI", "ARI", "k-NN"]


def test_tiles_without_important_scores_are_the_first_ones():
    assert texts({"n": 6, "n_labels": 8.3333, "n_regions": 39.8333}) == [
        ("Labels per image", [("this run", "8.3")]),
        ("Regions per image", [("this run", "39.8")]),
    ]


def test_bars_compare_values_between_0_and_1():
    values = {"vi_ods": 1.6, "pri_ods": 0.8, "f_ods": 0.7}
    values["baseline"] = {"vi_ods": 1.9, "pri_ods": 0.7}
    has_bars = {tile["name"]: tile["has_bars"] for tile in scores.tiles(values)}
    assert has_bars == {"PRI (ODS)": True, "VI (ODS) ↓": False, "Boundary F (ODS)": False}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"acc": 0.8333, "n": 1797, "baseline": {"acc": 0.5}, "published": {"nmi": 0.9}},
            "83.3% of 1,797 images are in the cluster matched to their class; baseline: 50.0%.",
        ),
        (RETRIEVAL, "98.7% of 450 images have a nearest neighbor of their own class; "),
        ({"miou": 0.19359, "n": 1}, "mIoU 0.194 on 1 image."),
        (
            {"vi_ods": 1.6, "published": {"name": "published (gPb)", "vi_ods": 1.69}},
            "VI (ODS) ↓ 1.600 bits; published (gPb): 1.690 bits.",
        ),
        (
            {"n": 6, "n_labels": 8.3333, "n_regions": 40.0},
            "Labels per image 8.3, Regions per image 40 on 6 images.",
        ),
        ({}, "No scores yet."),
    ],
)
def test_sentence_has_the_first_key_score_and_its_references(values, expected):
    assert scores.sentence(values, 0, 0).startswith(expected)


def test_sentence_without_labels_counts_clusters():
    values = {"loss": 0.1, "n": 1234}
    assert scores.sentence(values, 1234, 10) == "1,234 images in 10 clusters."


def test_tile_shows_the_deviation_beside_the_mean(run):
    write_json(run / "scores.json", **RETRIEVAL)
    text = Page(report.write_report(run)).text
    assert "NMI 0.9738 ± 0.0027 raw pixels 0.730 ± 0.031" in text
    assert "e-16" not in text and "sd" not in text


def test_scores_where_lower_is_better_are_explained(run):
    write_json(run / "scores.json", pri_ods=0.8, vi_ods=1.6)
    assert "↓: lower is better." in Page(report.write_report(run)).folded
    write_json(run / "scores.json", pri_ods=0.8)
    assert "lower is better" not in Page(report.write_report(run)).text
