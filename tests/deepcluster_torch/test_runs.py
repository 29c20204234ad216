"""Train, predict, evaluate, report, stop and resume: whole scripts on a tiny config."""

import base64
import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from common import datasets, metrics
from tests.entry_scripts import assert_the_same, lines, one_line
from tests.every_paper import Interrupted

V1 = ("--model.mode", "v1", "--training.n_epochs", 2)


class TestInterrupted(Interrupted):
    weights = "model.safetensors"
    # in the first and second epoch, and after the last batch of an epoch
    stops = ((2, "SIGTERM"), (5, "SIGINT"), (6, "SIGTERM"))
    first, more = 2, 2


def scores(run):
    return json.loads((run / "scores.json").read_text())


def rows(folder, name="predictions.csv"):
    with open(folder / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of(folder, *options):
    own = {"dataset.name": "folder", "dataset.path": folder, "dataset.n_images": "null"}
    own |= {"model.n_clusters": 3, "model.heads": "[6]", "training.n_epochs": 1}
    return [word for key, value in own.items() for word in (f"--{key}", value)] + list(options)


# ---- one run, from the images to the report


def test_pipeline_prints_only_the_run_folder(finished_run):
    result, run = finished_run
    assert result.stdout == f"{run}\n" and run.name.endswith("_whole")
    assert "mode v2: set by model.mode" in result.stderr


def test_run_folder_has_all_files(finished_run):
    _, run = finished_run
    names = "config.yml meta.json train.log metrics.jsonl checkpoints baseline.npz predictions.npz "
    names += "predictions.csv scores.json report.html epochs.csv probes.json images/captions.json "
    names += "images/map.png images/sizes.png images/filters.png images/activations.png "
    names += "images/neighbors.png images/clusters/00/closest.png images/clusters/03/farthest.png "
    names += "projector/tensors.tsv projector/metadata.tsv projector/sprite.png "
    names += "projector/projector_config.pbtxt"
    assert [name for name in names.split() if not (run / name).exists()] == []
    meta = json.loads((run / "meta.json").read_text())
    assert (meta["status"], meta["device"], meta["mode"]) == ("done", "cpu", "v2")
    assert meta["dataset_checksum"] and meta["stage_seconds"].keys() >= {"clustering", "training"}


def test_train_writes_the_predictions_that_pred_repeats(checkout, finished_run):
    run = checkout.train().run
    assert (run / "report.html").exists() and (run / "images/clusters/00/closest.png").exists()
    before = (run / "predictions.csv").read_bytes()
    assert checkout.pred(run).code == 0
    assert (run / "predictions.csv").read_bytes() == before
    assert (finished_run[1] / "predictions.csv").read_bytes() == before


def test_every_image_has_one_row_with_its_nearest_cluster_first(finished_run):
    _, run = finished_run
    table, arrays = rows(run), np.load(run / "predictions.npz")
    assert len(table) == len({row["path"] for row in table}) == 120
    assert [int(row["cluster"]) for row in table] == arrays["clusters"].tolist()
    tops = [list(map(int, row["top_3"].split())) for row in table]
    assert tops == arrays["nearest"].tolist() and {len(top) for top in tops} == {3}
    assert all(float(row["margin"]) >= 0 for row in table)


def test_scores_equal_those_of_the_predictions_and_the_baseline(finished_run):
    _, run = finished_run
    arrays, values = np.load(run / "predictions.npz"), scores(run)
    labels, clusters = arrays["labels"], arrays["clusters"]
    assert values["acc"] == metrics.clustering_accuracy(labels, clusters)
    assert values["nmi"] == metrics.nmi(labels, clusters) and values["n"] == 120
    baseline = np.load(run / "baseline.npz")["clusters"]
    assert values["baseline"]["acc"] == metrics.clustering_accuracy(labels, baseline)
    assert 0 <= values["knn"] <= 1 and 0 <= values["retrieval_map"] <= 1
    assert values["linear"].keys() >= {"conv1", "layer1", "features"}
    assert values["nmi_previous"] == float(rows(run, "epochs.csv")[-1]["nmi_previous"])


def test_report_contains_the_figures(finished_run):
    _, run = finished_run
    page = (run / "report.html").read_text()
    for name in ("map.png", "sizes.png", "neighbors.png"):
        content = base64.b64encode((run / "images" / name).read_bytes()).decode()
        assert content in page, name


def test_epochs_csv_has_one_row_per_epoch(finished_run):
    _, run = finished_run
    table = rows(run, "epochs.csv")
    assert [row["epoch"] for row in table] == ["0", "1", "2"]
    assert [row["nmi_previous"] == "" for row in table] == [True, False, False]
    assert all(float(row["loss"]) > 0 and float(row["balance"]) > 0 for row in table)
    assert [line["step"] for line in lines(run) if line["split"] == "epoch"] == [3, 6, 9]


def test_same_seed_gives_the_same_run_in_another_folder(checkout, finished_run):
    run = checkout.train("--tag", "whole").run
    assert run != finished_run[1]
    assert_the_same(run, finished_run[1])


@pytest.mark.parametrize(
    "options",
    [
        V1,
        (*V1, "--training.optimizer", "adam", "--training.lr", 1e-3, "--training.head_lr", 0.05),
        (*V1, "--model.clustering", "pic"),
        (*V1, "--training.one_pass", True),
    ],
    ids=["v1", "adam", "pic", "one pass"],
)
def test_resumed_v1_equals_an_uninterrupted_run(checkout, options):
    expected = checkout.train(*options).run
    run = checkout.train(*options, kill_at="4:SIGTERM").run  # in the second epoch
    assert checkout.resume(run).code == 0
    assert_the_same(run, expected)
    assert (run / "epochs.csv").read_text() == (expected / "epochs.csv").read_text()


def test_run_stopped_in_its_first_epoch_has_predictions_and_a_report(checkout, stopped_run):
    assert checkout.score(stopped_run)["n"] == 120
    assert checkout("common.report", stopped_run).code == 0


# ---- ways to start


@pytest.mark.parametrize(
    ("cwd", "script"), [(".", "deepcluster_torch.train"), ("deepcluster_torch", "train.py")]
)
def test_train_starts_as_a_module_and_in_its_folder(checkout, cwd, script):
    result = checkout(script, "--model.n_clusters", 0, cwd=cwd)
    assert result.err == "error: model.n_clusters is 0: expected 1 or more\n"


@pytest.mark.parametrize("script", ["train_cuda.py", "pred_cuda.py"])
def test_cuda_scripts_fail_without_a_gpu(checkout, script):
    result = checkout(f"deepcluster_torch/{script}", "--tag", "x")
    assert "no CUDA GPU found" in one_line(result)


# ---- folders, new images


def test_folder_of_images_has_galleries_and_scores(checkout, photos):
    result = checkout.train(*of(photos))
    assert result.code == 0, result.err
    assert "building a cache of 24 images" in result.err
    assert len(rows(result.run)) == 24 and (result.run / "report.html").exists()
    assert checkout.score(result.run)["n"] == 24
    again = checkout.train(*of(photos))
    assert "building a cache" not in again.err and again.code == 0, again.err


def test_new_images_get_the_clusters_they_had_in_training(checkout, photos, tmp_path):
    run = checkout.train(*of(photos)).run
    clusters = {row["path"]: row["cluster"] for row in rows(run)}
    folder = shutil.copytree(photos / "red", tmp_path / "new photos")
    options = ["--input", folder, "--folders", "copy", "--neighbors"]
    result = checkout.pred(run, *options)
    assert result.code == 0, result.err
    out = run / "predictions_new photos"
    for row in rows(out):
        name = row["path"].split("/")[-1]
        assert row["cluster"] == clusters[str(photos / "red" / name)]
        assert (out / "folders" / f"{int(row['cluster']):02d}" / name).is_file()
    first = [row for row in rows(out, "neighbors.csv") if row["rank"] == "1"]
    names = [(row["path"].split("/")[-1], row["neighbor"].split("/")[-1]) for row in first]
    assert all(path == neighbor for path, neighbor in names), "each is nearest to itself"
    assert (out / "images/neighbors.png").exists()
    again = checkout.pred(run, *options)
    assert "folders exists: move it away" in one_line(again)


def test_links_point_to_the_images(checkout, photos, tmp_path):
    run = checkout.train(*of(photos)).run
    assert checkout.pred(run, "--out", tmp_path / "out", "--folders", "link").code == 0
    links = [path for path in (tmp_path / "out/folders").rglob("*.png")]
    assert len(links) == 24 and all(link.resolve().is_relative_to(photos) for link in links)


def test_rgb_photo_of_another_size_is_assigned_by_a_gray_run(checkout, finished_run, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (30, 47, 3), np.uint8)
    path, out = tmp_path / "one photo.jpg", tmp_path / "new" / "out"
    Image.fromarray(photo).save(path)
    result = checkout.pred(finished_run[1], "--input", path, "--out", out)
    assert (result.code, result.out) == (0, ""), result.err
    assert [row["path"] for row in rows(out)] == [str(path)]


def test_held_out_images_have_their_own_scores(checkout):
    run = checkout.train("--dataset.held_out", 0.25, "--training.n_epochs", 1).run
    values = checkout.score(run)
    assert values["n"] == 90 and values["held_out"].keys() >= {"acc", "nmi", "ari"}
    assert "held out of the training" in values["protocol"]


def test_merged_clusters_are_scored_as_groups(checkout):
    options = ("--model.n_clusters", 20, "--model.n_groups", 5, "--training.n_epochs", 1)
    run = checkout.train(*options).run
    values = checkout.score(run)
    assert values["n_clusters"] == 5
    assert values["before_merging"]["purity"] >= values["purity"]


def test_pretrained_trunk_is_frozen_and_clustered(checkout, finished_run):
    weights = max(finished_run[1].glob("checkpoints/0*")) / "model.safetensors"
    options = ("--model.mode", "auto", "--model.weights", weights)
    result = checkout.train(*options)
    assert result.code == 0, result.err
    assert "mode frozen: pretrained trunk" in result.err
    again = checkout.train(*options, "--model.n_clusters", 5)
    assert "features_" in again.err, "features are computed once"
    before = (again.run / "predictions.csv").read_bytes()
    assert checkout.score(again.run)["n_clusters"] == 5
    assert (again.run / "predictions.csv").read_bytes() == before


def test_unlabeled_images_have_galleries_and_no_accuracy(checkout, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for i, image in enumerate(datasets.load("digits").images[:30]):
        Image.fromarray(image[..., 0]).save(folder / f"{i:03d}.png")
    run = checkout.train(*of(folder)).run
    values = checkout.score(run)
    assert "balance" in values and not {"acc", "knn", "baseline"} & values.keys()
    assert checkout("common.report", run).code == 0


def test_recipe_of_v2_trains_in_small_and_resumes_exactly(checkout, photos):
    small = {
        "dataset.path": photos, "dataset.size": 24, "model.arch": "resnet", "model.width": 4,
        "model.n_blocks": 1, "model.input_size": 16, "model.n_clusters": 3,
        "model.heads": "[6, 5, 4]", "model.projection": 16, "training.small_size": 8,
        "training.n_epochs": 2, "training.batch_size": 12, "training.lr": 1.0,
    }  # fmt: skip
    options = [word for key, value in small.items() for word in (f"--{key}", value)]
    train = f"{checkout.paper.name}/train.py"
    expected = checkout(train, "--config", "deepcluster_v2.yml", *options)
    assert expected.code == 0, expected.err
    stopped = checkout(train, "--config", "deepcluster_v2.yml", *options, kill_at="3:SIGTERM")
    assert checkout.resume(stopped.run).code == 0
    assert_the_same(stopped.run, expected.run)
    assert checkout.score(expected.run)["n"] == 24
