"""Train, predict, evaluate, extract, report, stop and go on: whole scripts on a tiny config."""

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


# ---- one run, from the images to the report


def test_the_pipeline_prints_the_run_folder_alone(finished_run):
    answer, run = finished_run
    assert answer.stdout == f"{run}\n" and run.name.endswith("_whole")


def test_a_run_folder_holds_what_every_paper_has(finished_run):
    _, run = finished_run
    names = "config.yml meta.json train.log metrics.jsonl checkpoints baseline.json scores.json "
    names += "predictions.npz predictions.csv report.html images/captions.json images/tsne.png "
    names += "images/retrieval.png images/tsne_mosaic.png images/clusters/00/closest.png"
    assert [name for name in names.split() if not (run / name).exists()] == []
    meta = json.loads((run / "meta.json").read_text())
    assert (meta["status"], meta["device"]) == ("done", "CPU")
    assert meta["dataset_checksum"] and "tensorflow" in meta["versions"]


def test_every_test_image_has_one_row_its_cluster_and_embedding(finished_run):
    _, run = finished_run
    table, arrays = rows(run / "predictions.csv"), predictions(run)
    assert len(table) == len({row["path"] for row in table}) == 25
    assert [int(row["cluster"]) for row in table] == arrays["clusters"].tolist()
    assert arrays["embeddings"].shape == (25, 8) and arrays["kmeans"].shape == (3, 25)
    names = [row["path"].split("/")[-2] for row in table]
    assert names == [arrays["classes"][label] for label in arrays["labels"]]


def test_scores_are_those_of_the_embeddings_beside_raw_pixels(finished_run):
    _, run = finished_run
    arrays, found = predictions(run), scores(run)
    embeddings, labels = arrays["embeddings"], arrays["labels"]
    recall = metrics.recall_at_k(embeddings, labels)
    assert [found[f"recall_at_{k}"] for k in (1, 2, 4, 8)] == list(recall.values())
    assert found["map_at_r"] == metrics.map_at_r(embeddings, labels)
    values = [metrics.nmi(labels, clusters) for clusters in arrays["kmeans"]]
    assert found["nmi"] == pytest.approx(np.mean(values))
    assert found["n"] == 25 and found["n_unmatched"] == 0
    assert found["baseline"]["name"] == "raw pixels" and found["baseline"]["recall_at_1"] > 0


def test_the_report_holds_the_pictures(finished_run):
    _, run = finished_run
    page = (run / "report.html").read_text()
    for name in ("retrieval.png", "tsne.png", "tsne_mosaic.png"):
        content = base64.b64encode((run / "images" / name).read_bytes()).decode()
        assert content in page, name
    assert "Recall at 1" in page or "Recall_at_1" in page


def test_neighbours_are_framed_by_whether_they_hit():
    from clusterloss_tf import pictures

    embeddings = np.array([[0.0], [1.0], [3.0]])
    shown = np.zeros((3, 24, 24, 3), np.uint8)
    picture = pictures.retrieval_grid(shown, embeddings, np.array([0, 0, 1]))
    # three rows of three; a tile is 2 * 24 pixels and a frame of 2, two pixels apart
    corners = picture[:: 2 * 24 + 6, :: 2 * 24 + 6].tolist()
    query, hit, miss = map(list, (pictures.QUERY, pictures.HIT, pictures.MISS))
    assert corners == [[query, hit, miss], [query, hit, miss], [query, miss, miss]]


def test_the_curves_show_every_epoch(finished_run):
    _, run = finished_run
    assert [line["step"] for line in lines(run) if line["split"] == "test"] == [2, 4, 6]
    assert [line["step"] for line in lines(run) if line["split"] == "train"] == [2, 4, 6]


def test_the_same_seed_gives_the_same_run_in_a_folder_of_its_own(checkout, finished_run):
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
    answer = checkout.train("--training.loss", loss, "--training.n_epochs", 1)
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    "options",
    [
        ("--training.refine", "swap", "--training.margin", "ami", "--training.reduction", "sum"),
        ("--training.optimizer", "sgd", "--training.milestones", "[0.5]", "--model.dropout", 0.2),
        ("--model.bottleneck", "true", "--model.depth", 10, "--model.normalize", "false"),
        ("--dataset.protocol", "disjoint", "--training.augment", "flip"),
    ],
)
def test_every_way_of_training_ends_in_finite_scores(checkout, options):
    answer = checkout.train(*options, "--training.n_epochs", 1)
    assert answer.code == 0, answer.err
    assert 0 <= checkout.score(answer.run)["recall_at_1"] <= 1


def test_no_epoch_gives_the_untrained_network(checkout):
    run = checkout.train("--training.n_epochs", 0).run
    assert checkout.score(run)["n"] == 25


def test_disjoint_scores_are_of_classes_that_training_never_saw(checkout):
    options = ["--dataset.protocol", "disjoint", "--training.n_epochs", 1]
    run = checkout.train(*options).run
    checkout.score(run)
    # 0.4 of five classes: the last two by name
    assert {row["path"].split("/")[-2] for row in rows(run / "predictions.csv")} == {
        "orange",
        "red",
    }


def test_a_trunk_is_taken_over_but_for_the_embedding(checkout, finished_run):
    _, trunk = finished_run
    options = ["--model.trunk", trunk, "--model.dim", 6, "--training.n_epochs", 0]
    run = checkout.train(*options).run
    assert checkout.score(run)["n"] == 25
    found, expected = (
        h5py.File(io.BytesIO(weights(each)["model.weights.h5"])) for each in (run, trunk)
    )
    assert np.array_equal(found["block1_layer0.kernel"], expected["block1_layer0.kernel"])
    assert found["embedding.kernel"].shape != expected["embedding.kernel"].shape


# ---- the ways to start


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (".", ["-m", "clusterloss_tf.evaluate"]),
        ("clusterloss_tf", ["evaluate.py"]),
        ("/", ["{paper}/evaluate.py"]),
    ],
)
def test_evaluate_starts_from_anywhere_and_without_tensorflow(
    checkout, finished_run, tmp_path, place, command
):
    _, run = finished_run
    (tmp_path / "tensorflow.py").write_text("raise ImportError('evaluate.py loads TensorFlow')")
    command = [word.format(paper=checkout.paper) for word in command]
    answer = subprocess.run(
        [sys.executable, *command, f"{run.parent.name}/{run.name}"],
        cwd=checkout.path / place,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (answer.returncode, answer.stdout) == (0, ""), answer.stderr


@pytest.mark.parametrize(
    ("place", "script"), [(".", "clusterloss_tf.train"), ("clusterloss_tf", "train.py")]
)
def test_train_starts_as_a_module_and_in_its_folder(checkout, place, script):
    # refused as soon as all is loaded; pipeline.sh has started it by its path
    answer = checkout(script, "--model.dim", 0, cwd=place)
    assert answer.err == "error: model.dim is 0: expected 1 or more\n"


# ---- what else one can have of a run


def test_features_lie_in_the_order_of_the_data_set(checkout, finished_run, tmp_path):
    _, run = finished_run
    answer = checkout("clusterloss_tf.extract", run, "--out", tmp_path / "test")
    assert (answer.code, answer.out) == (0, ""), answer.err
    arrays, index = predictions(run), rows(tmp_path / "test" / "index.csv")
    assert [row["path"] for row in index] == [row["path"] for row in rows(run / "predictions.csv")]
    np.testing.assert_array_equal(np.load(tmp_path / "test/features.npy"), arrays["embeddings"])
    np.testing.assert_array_equal(np.load(tmp_path / "test/labels.npy"), arrays["labels"])
    assert checkout("clusterloss_tf.extract", run, "--part", "train").code == 0
    assert np.load(run / "features_train/features.npy").shape == (35, 8)


def test_test_images_are_searched_in_the_training_images(checkout, finished_run, tmp_path):
    run, folder = copy_of(finished_run[1], tmp_path), tmp_path / "features"
    assert checkout("clusterloss_tf.extract", run, "--part", "train", "--out", folder).code == 0
    answer = checkout(f"{checkout.paper.name}/evaluate.py", run, "--gallery", folder)
    assert answer.code == 0, answer.err
    arrays = predictions(run)
    features, labels = (np.load(folder / f"{name}.npy") for name in ("features", "labels"))
    nearest = np.linalg.norm(arrays["embeddings"][:, None] - features, axis=2).argmin(1)
    expected = (labels[nearest] == arrays["labels"]).mean()
    assert scores(run)["against_gallery"]["recall_at_1"] == pytest.approx(expected)


def test_tsne_draws_a_map_of_all_test_images(checkout, finished_run, tmp_path):
    run = copy_of(finished_run[1], tmp_path)
    before = (run / "images/tsne.png").stat().st_mtime_ns
    answer = checkout("clusterloss_tf.tsne", run, "--limit", 20)
    assert (answer.code, answer.out) == (0, ""), answer.err
    assert "20 images" in answer.err
    assert (run / "images/tsne.png").stat().st_mtime_ns > before
    assert images.load(run / "images/tsne_mosaic.png").shape == (924, 924, 3)


def test_new_images_get_the_embeddings_that_they_had(checkout, finished_run, photos, tmp_path):
    _, run = finished_run
    answer = checkout.pred(run, "--input", photos, "--out", tmp_path)
    assert answer.code == 0, answer.err
    table, arrays = rows(tmp_path / "predictions.csv"), predictions(tmp_path)
    assert len(table) == 60 and len(set(arrays["labels"])) == 5
    place = {row["path"]: i for i, row in enumerate(table)}
    again = arrays["embeddings"][[place[row["path"]] for row in rows(run / "predictions.csv")]]
    # batches of another size may sum in another order
    np.testing.assert_allclose(again, predictions(run)["embeddings"], atol=1e-5)


def test_one_gray_photo_without_a_label_has_an_embedding(checkout, finished_run, tmp_path):
    _, run = finished_run
    photo = np.random.default_rng(0).integers(0, 256, (30, 47), np.uint8)
    Image.fromarray(photo).save(tmp_path / "one photo.png")
    answer = checkout.pred(run, "--input", tmp_path / "one photo.png", "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    arrays = predictions(tmp_path / "out")
    assert arrays["embeddings"].shape == (1, 8) and "labels" not in arrays


# ---- stopped and gone on


def test_scores_after_a_stop_are_those_of_a_run_never_stopped(checkout, finished_run):
    _, expected = finished_run
    run = checkout.train(kill_at="3:SIGTERM").run
    checkout.resume(run)
    assert checkout.score(run) == scores(expected)


def test_learned_proxies_dropout_and_momentum_go_on_too(checkout):
    options = ["--training.loss", "proxy_anchor", "--model.dropout", 0.3]
    options += ["--training.optimizer", "sgd"]
    expected, run = checkout.train(*options).run, checkout.train(*options, kill_at="3:SIGTERM").run
    assert checkout.resume(run).code == 0
    assert_the_same(run, expected)
