"""The entry scripts with a tiny config: train, resume, predict, evaluate, extract, t-SNE."""

import base64
import csv
import io
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from common import images, metrics
from tests.entry_scripts import assert_the_same, copy_of, lines, weights
from tests.every_paper import Interrupted


class TestInterrupted(Interrupted):
    stops = ((1, "SIGTERM"), (4, "SIGINT"), (5, "SIGTERM"))
    first, more = 1, 2


def scores(run):
    return json.loads((run / "scores.json").read_text())


def predictions(folder):
    with np.load(folder / "predictions.npz") as file:
        return dict(file)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- a finished run


def test_pipeline_prints_run_folder_only(finished_run):
    completed, run = finished_run
    assert completed.stdout == f"{run}\n" and run.name.endswith("_whole")


def test_run_folder_is_complete(finished_run):
    _, run = finished_run
    names = "config.yml meta.json train.log metrics.jsonl checkpoints baseline.json scores.json "
    names += "predictions.npz predictions.csv report.html images/captions.json images/tsne.png "
    names += "images/retrieval.png images/tsne_mosaic.png images/clusters/00/closest.png "
    names += "images/clusters/00/farthest.png"
    assert [name for name in names.split() if not (run / name).exists()] == []
    meta = json.loads((run / "meta.json").read_text())
    assert (meta["status"], meta["device"]) == ("done", "CPU")
    assert meta["dataset_checksum"] and "tensorflow" in meta["versions"]


def test_predictions_have_one_row_per_test_image(finished_run):
    _, run = finished_run
    table, arrays = rows(run / "predictions.csv"), predictions(run)
    assert len(table) == len({row["path"] for row in table}) == 25
    assert [int(row["cluster"]) for row in table] == arrays["clusters"].tolist()
    assert arrays["embeddings"].shape == (25, 8) and arrays["kmeans"].shape == (3, 25)
    names = [row["path"].split("/")[-2] for row in table]
    assert names == [arrays["classes"][label] for label in arrays["labels"]]


def test_scores_match_embeddings_and_include_baseline(finished_run):
    _, run = finished_run
    arrays, saved = predictions(run), scores(run)
    embeddings, labels = arrays["embeddings"], arrays["labels"]
    recall = metrics.recall_at_k(embeddings, labels)
    assert [saved[f"recall_at_{k}"] for k in (1, 2, 4, 8)] == list(recall.values())
    assert saved["map_at_r"] == metrics.map_at_r(embeddings, labels)
    values = [metrics.nmi(labels, clusters) for clusters in arrays["kmeans"]]
    assert saved["nmi"] == pytest.approx(np.mean(values))
    assert saved["n"] == 25 and saved["n_unmatched"] == 0
    assert saved["baseline"]["name"] == "raw pixels" and saved["baseline"]["recall_at_1"] > 0


def test_report_embeds_figures(finished_run):
    _, run = finished_run
    page = (run / "report.html").read_text()
    for name in ("retrieval.png", "tsne.png", "tsne_mosaic.png"):
        content = base64.b64encode((run / "images" / name).read_bytes()).decode()
        assert content in page, name
    assert "Recall@1" in page


def test_retrieval_grid_frames_hits_and_misses():
    from clusterloss_tf import figures

    embeddings = np.array([[0.0], [1.0], [3.0]])
    rgb = np.zeros((3, 24, 24, 3), np.uint8)
    grid = figures.retrieval_grid(rgb, embeddings, np.array([0, 0, 1]))
    # three rows of three; a tile is 2 * 24 pixels and a frame of 2, two pixels apart
    corners = grid[:: 2 * 24 + 6, :: 2 * 24 + 6].tolist()
    query, hit, miss = map(list, (figures.QUERY, figures.HIT, figures.MISS))
    assert corners == [[query, hit, miss], [query, hit, miss], [query, miss, miss]]


def test_metrics_are_logged_each_epoch(finished_run):
    _, run = finished_run
    assert [line["step"] for line in lines(run) if line["split"] == "test"] == [2, 4, 6]
    assert [line["step"] for line in lines(run) if line["split"] == "train"] == [2, 4, 6]


def test_same_seed_gives_same_weights_in_new_folder(checkout, finished_run):
    _, expected = finished_run
    run = checkout.train("--tag", "whole").run
    assert run.name == f"{expected.name}_2"
    assert_the_same(run, expected)
    assert checkout.score(run) == scores(expected)
    other = checkout.train("--training.seed", 1).run
    assert weights(other) != weights(run)


@pytest.mark.parametrize(
    "loss",
    ["contrastive", "triplet", "triplet_hard", "lifted", "n_pair", "multi_similarity",
     "proxy_anchor", "softmax"],
)  # fmt: skip
def test_every_loss_trains(checkout, loss):
    result = checkout.train("--training.loss", loss, "--training.n_epochs", 1)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    "options",
    [
        ("--training.refine", "swap", "--training.margin", "ami", "--training.reduction", "sum"),
        ("--training.optimizer", "sgd", "--training.milestones", "[0.5]", "--model.dropout", 0.2),
        ("--model.bottleneck", "true", "--model.depth", 10, "--model.normalize", "false"),
        ("--dataset.protocol", "disjoint", "--training.augment", "flip"),
    ],
)
def test_every_option_trains(checkout, options):
    result = checkout.train(*options, "--training.n_epochs", 1)
    assert result.code == 0, result.err
    assert 0 <= checkout.score(result.run)["recall_at_1"] <= 1


def test_zero_epochs_score_untrained_network(checkout):
    run = checkout.train("--training.n_epochs", 0).run
    assert checkout.score(run)["n"] == 25


def test_disjoint_tests_on_classes_not_trained_on(checkout):
    options = ["--dataset.protocol", "disjoint", "--training.n_epochs", 1]
    run = checkout.train(*options).run
    checkout.score(run)
    # 0.4 of five classes: the last two by name
    assert {row["path"].split("/")[-2] for row in rows(run / "predictions.csv")} == {
        "orange",
        "red",
    }


def test_trunk_is_loaded_except_embedding(checkout, finished_run):
    _, trunk = finished_run
    options = ["--model.trunk", trunk, "--model.dim", 6, "--training.n_epochs", 0]
    run = checkout.train(*options).run
    assert checkout.score(run)["n"] == 25
    saved, expected = (
        h5py.File(io.BytesIO(weights(each)["model.weights.h5"])) for each in (run, trunk)
    )
    assert np.array_equal(saved["block1_layer0.kernel"], expected["block1_layer0.kernel"])
    assert saved["embedding.kernel"].shape != expected["embedding.kernel"].shape


# ---- starting the scripts


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (".", ["-m", "clusterloss_tf.evaluate"]),
        ("clusterloss_tf", ["evaluate.py"]),
        ("/", ["{paper}/evaluate.py"]),
    ],
)
def test_evaluate_runs_anywhere_without_tensorflow(
    checkout, finished_run, tmp_path, place, command
):
    _, run = finished_run
    (tmp_path / "tensorflow.py").write_text("raise ImportError('evaluate.py loads TensorFlow')")
    command = [word.format(paper=checkout.paper) for word in command]
    completed = subprocess.run(
        [sys.executable, *command, f"{run.parent.name}/{run.name}"],
        cwd=checkout.path / place,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (completed.returncode, completed.stdout) == (0, ""), completed.stderr


@pytest.mark.parametrize(
    ("place", "script"), [(".", "clusterloss_tf.train"), ("clusterloss_tf", "train.py")]
)
def test_train_runs_as_module_and_in_its_folder(checkout, place, script):
    # an invalid option ends it after the imports; pipeline.sh has run it by its path
    result = checkout(script, "--model.dim", 0, cwd=place)
    assert result.err == "error: model.dim is 0: expected 1 or more\n"


# ---- other scripts and new images


def test_extract_keeps_order_of_dataset(checkout, finished_run, tmp_path):
    _, run = finished_run
    result = checkout("clusterloss_tf.extract", run, "--out", tmp_path / "test")
    assert (result.code, result.out) == (0, ""), result.err
    arrays, index = predictions(run), rows(tmp_path / "test" / "index.csv")
    assert [row["path"] for row in index] == [row["path"] for row in rows(run / "predictions.csv")]
    np.testing.assert_array_equal(np.load(tmp_path / "test/features.npy"), arrays["embeddings"])
    np.testing.assert_array_equal(np.load(tmp_path / "test/labels.npy"), arrays["labels"])
    assert checkout("clusterloss_tf.extract", run, "--part", "train").code == 0
    assert np.load(run / "features_train/features.npy").shape == (35, 8)


def test_gallery_of_training_images_is_searched(checkout, finished_run, tmp_path):
    run, folder = copy_of(finished_run[1], tmp_path), tmp_path / "features"
    assert checkout("clusterloss_tf.extract", run, "--part", "train", "--out", folder).code == 0
    result = checkout(f"{checkout.paper.name}/evaluate.py", run, "--gallery", folder)
    assert result.code == 0, result.err
    arrays = predictions(run)
    features, labels = (np.load(folder / f"{name}.npy") for name in ("features", "labels"))
    nearest = np.linalg.norm(arrays["embeddings"][:, None] - features, axis=2).argmin(1)
    expected = (labels[nearest] == arrays["labels"]).mean()
    assert scores(run)["against_gallery"]["recall_at_1"] == pytest.approx(expected)


def test_tsne_draws_maps(checkout, finished_run, tmp_path):
    run = copy_of(finished_run[1], tmp_path)
    before = (run / "images/tsne.png").stat().st_mtime_ns
    result = checkout("clusterloss_tf.tsne", run, "--limit", 20)
    assert (result.code, result.out) == (0, ""), result.err
    assert "20 images" in result.err
    assert (run / "images/tsne.png").stat().st_mtime_ns > before
    assert images.load(run / "images/tsne_mosaic.png").shape == (924, 924, 3)


def test_new_images_have_same_embeddings(checkout, finished_run, photos, tmp_path):
    _, run = finished_run
    result = checkout.pred(run, "--input", photos, "--out", tmp_path)
    assert result.code == 0, result.err
    table, arrays = rows(tmp_path / "predictions.csv"), predictions(tmp_path)
    assert len(table) == 60 and len(set(arrays["labels"])) == 5
    row_of = {row["path"]: i for i, row in enumerate(table)}
    again = arrays["embeddings"][[row_of[row["path"]] for row in rows(run / "predictions.csv")]]
    # another batch size may change the order of summation
    np.testing.assert_allclose(again, predictions(run)["embeddings"], atol=1e-5)


def test_single_gray_image_without_label_is_embedded(checkout, finished_run, tmp_path):
    _, run = finished_run
    photo = np.random.default_rng(0).integers(0, 256, (30, 47), np.uint8)
    Image.fromarray(photo).save(tmp_path / "one photo.png")
    result = checkout.pred(run, "--input", tmp_path / "one photo.png", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    arrays = predictions(tmp_path / "out")
    assert arrays["embeddings"].shape == (1, 8) and "labels" not in arrays


# ---- resume


def test_resumed_run_has_same_scores(checkout, finished_run):
    _, expected = finished_run
    run = checkout.train(kill_at="3:SIGTERM").run
    checkout.resume(run)
    assert checkout.score(run) == scores(expected)


def test_proxies_dropout_and_momentum_resume_exactly(checkout):
    options = ["--training.loss", "proxy_anchor", "--model.dropout", 0.3]
    options += ["--training.optimizer", "sgd"]
    expected, run = checkout.train(*options).run, checkout.train(*options, kill_at="3:SIGTERM").run
    assert checkout.resume(run).code == 0
    assert_the_same(run, expected)
