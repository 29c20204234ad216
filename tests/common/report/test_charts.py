import json

import pytest

from common import report
from common.report import charts
from tests.common.report.page import Page


def test_incomplete_last_line_is_ignored(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"split": "train", "step": 5, "lo')
    assert "last 0.200" in Page(report.write_report(run)).text  # step 4: 1 / 5


def test_one_chart_per_quantity_and_split_with_few_points(run):
    with open(run / "metrics.jsonl", "w") as file:
        for step in range(5000):
            row = {"split": "train", "step": step, "loss": 9.0 if step == 2718 else 1.0}
            file.write(json.dumps(row | {"proportion/0": 0.4, "proportion/1": 0.6}) + "\n")
        file.write(json.dumps({"split": "test", "step": 5000, "acc": 0.5}) + "\n")
    page = Page(report.write_report(run))
    assert [svg["aria-label"] for svg in page.all("svg")] == [
        "Loss train",
        "Cluster proportions train",
        "Accuracy test",
    ]
    loss, first, second, acc = (line["points"].split() for line in page.all("polyline"))
    assert max(map(len, (loss, first, second))) <= 500 and len(acc) == 1
    assert min(float(point.split(",")[1]) for point in loss) == 8  # the single spike is at the top


def test_learning_rate_and_throughput_are_folded(run):
    row = {"split": "train", "step": 0, "loss": 1.5, "lr": 0.25, "images_per_second": 812.0}
    (run / "metrics.jsonl").write_text(json.dumps(row))
    page = Page(report.write_report(run))
    assert "Learning rate, Images per second" in page.text
    assert "last 0.250" in page.folded and "last 812" in page.folded
    assert "last 1.500" in page.text and "last 1.500" not in page.folded


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 1400, ["0", "500", "1000"]),
        (0, 60_000, ["0k", "20k", "40k", "60k"]),
        (0.021, 0.034, ["0.025", "0.030"]),
        (-1, 1, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert [text for _, text in charts._ticks(low, high)] == expected
