import json
import subprocess
import sys
from pathlib import Path

import pytest

from common import UserError
from common.summary import summarize, table

ROOT = Path(__file__).resolve().parents[2]


def make_runs(folder, *scores):
    runs = [folder / f"1122_seed{seed}" for seed in range(len(scores))]
    for run, score in zip(runs, scores, strict=True):
        run.mkdir()
        (run / "scores.json").write_text(json.dumps(score))
    return runs


def test_mean_and_deviation_of_common_scores(tmp_path):
    runs = make_runs(
        tmp_path,
        {"acc": 0.9, "nmi": 0.5, "n": 10, "protocol": "x", "baseline": {"acc": 0.1}},
        {"acc": 0.7, "nmi": 0.5, "ari": 0.1, "n": 10},
    )
    summary = summarize(runs)
    assert summary.names == ["acc", "nmi"]
    assert summary.mean == pytest.approx([0.8, 0.5])
    assert summary.deviation == pytest.approx([0.02**0.5, 0])  # sqrt((.1^2 + .1^2) / (2 - 1))


def test_best_run_has_the_lowest_loss_not_the_highest_score(tmp_path):
    runs = make_runs(tmp_path, {"acc": 0.9, "loss": 2}, {"acc": 0.7, "loss": 1})
    summary = summarize(runs)
    assert summary.best == 1
    assert table(runs, summary).splitlines()[-1].split() == [
        *("lowest", "loss:", "1122_seed1", "0.7000", "1.0000")
    ]


def test_single_run_has_no_deviation(tmp_path):
    runs = make_runs(tmp_path, {"acc": 0.9})
    assert table(runs, summarize(runs)).splitlines()[-1].split() == ["standard", "deviation", "-"]


def test_runs_without_common_scores_are_refused(tmp_path):
    runs = make_runs(tmp_path, {"acc": 0.9}, {"miou": 0.3})
    with pytest.raises(UserError, match="no score in common"):
        summarize(runs)
    (runs[1] / "scores.json").write_text("{")
    with pytest.raises(UserError, match="1122_seed1 has no readable scores.json"):
        summarize(runs)


def test_command_prints_the_table_or_one_error(tmp_path):
    (run,) = make_runs(tmp_path, {"acc": 0.9})
    command = [sys.executable, "-m", "common.summary"]
    done = subprocess.run([*command, run], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "0.9000" in done.stdout and not done.stderr
    done = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and not done.stdout
    assert done.stderr.count("\n") == 1
