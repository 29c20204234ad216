"""Scores of predictions against values computed by hand."""

from pathlib import Path

import numpy as np
import pytest

from common import scoring
from deepcluster_torch import evaluate


def predictions(clusters, n_clusters=None, **arrays):
    clusters = np.array(clusters)
    n_clusters = n_clusters or clusters.max() + 1
    return {"clusters": clusters, "distances": np.ones(len(clusters)), "n_clusters": n_clusters} | {
        name: np.array(values) for name, values in arrays.items()
    }


def test_scores_without_labels_have_no_accuracy():
    scores = evaluate.evaluate(predictions([0, 0, 1, 1], 3))
    assert not {"acc", "nmi"} & scores.keys()
    assert (scores["n"], scores["n_clusters"], scores["n_empty_clusters"]) == (4, 3, 1)


def test_balance_is_the_effective_fraction_of_clusters():
    assert evaluate.balance(np.array([5, 5, 5, 5])) == pytest.approx(1)
    assert evaluate.balance(np.array([20, 0, 0, 0])) == pytest.approx(1 / 4)
    assert evaluate.balance(np.array([10, 10, 0, 0])) == pytest.approx(2 / 4)


def test_merged_clusters_also_have_scores_before_merging():
    # 0 and 1 are one class: correct once merged, one of them an error before
    scores = evaluate.evaluate(predictions([0, 0, 1, 1], fine=[0, 1, 2, 2], labels=[0, 0, 1, 1]))
    assert scores["acc"] == 1 and scores["before_merging"]["acc"] == 3 / 4
    assert scores["before_merging"]["purity"] == 1


def test_published_scores_are_of_the_dataset():
    results = Path(evaluate.__file__).with_name("results.csv")
    assert scoring.published(results, "digits.yml") == {}
    assert scoring.published(results, "cifar10.yml")["published"]["acc"] == 0.374


@pytest.mark.parametrize("text", ["", "epoch,nmi_previous\n", "epoch,loss\n0,bad\n"])
def test_last_epoch_of_a_damaged_table_is_empty(tmp_path, text):
    (tmp_path / "epochs.csv").write_text(text)
    assert evaluate.last_epoch(tmp_path / "epochs.csv") == {}


def test_last_epoch_has_no_empty_cells(tmp_path):
    (tmp_path / "epochs.csv").write_text("epoch,loss,nmi\n0,2.5,\n1,2.0,\n")
    assert evaluate.last_epoch(tmp_path / "epochs.csv") == {"epoch": 1, "loss": 2.0}
