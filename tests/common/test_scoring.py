import json

import numpy as np
import pytest

from common import UserError, scoring
from common.run import Run


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path, "toy", "a", {})


def test_predictions_returns_arrays_by_name(run):
    np.savez(run.path / "predictions.npz", clusters=[0, 1], labels=[1, 1])
    arrays = {name: array.tolist() for name, array in scoring.predictions(run).items()}
    assert arrays == {"clusters": [0, 1], "labels": [1, 1]}


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04 cut"])
def test_unreadable_predictions_are_refused(run, content):
    if content is not None:
        (run.path / "predictions.npz").write_bytes(content)
    assert scoring.arrays(run.path / "predictions.npz") is None
    with pytest.raises(UserError, match="no readable predictions.npz: run pred.py on it first"):
        scoring.predictions(run)


def test_rows_returns_the_written_rows(run):
    (run.path / "predictions.csv").write_text("path,n\na b.png,3\né.png,4\n", encoding="utf-8")
    assert scoring.rows(run, ["n"]) == [{"path": "a b.png", "n": "3"}, {"path": "é.png", "n": "4"}]


@pytest.mark.parametrize("text", [None, "", "path,n\n", "a,b\n1,2\n", "path,n\na", "path,n\na,x"])
def test_rows_without_integers_are_refused(run, text):
    if text is not None:
        (run.path / "predictions.csv").write_text(text)
    with pytest.raises(UserError, match="no readable predictions.csv: run pred.py on it first"):
        scoring.rows(run, ["n"])


def test_published_returns_scores_of_the_config(tmp_path):
    (tmp_path / "results.csv").write_text(
        "config,seed,commit,metric,value,minutes,machine\n"
        "a.yml,0,c,acc,0.9,1,ours\n"
        "a.yml,published,,acc,0.5,,Somebody 2020\n"
        "a.yml,published,,nmi,0.25,,Somebody 2020\n"
    )
    assert scoring.published(tmp_path / "results.csv", "a.yml") == {
        "published": {"name": "published (Somebody 2020)", "acc": 0.5, "nmi": 0.25}
    }
    assert scoring.published(tmp_path / "results.csv", "b.yml") == {}


def test_write_saves_scores_with_protocol_and_logs_them(run, caplog):
    caplog.set_level("INFO")
    scoring.write(run, {"acc": 0.5, "n": 3, "baseline": {"acc": 0.25}}, "All images.")
    assert json.loads((run.path / "scores.json").read_text()) == {
        "acc": 0.5,
        "n": 3,
        "baseline": {"acc": 0.25},
        "protocol": "All images.",
    }
    assert caplog.messages == ["acc 0.5, n 3"]
