"""Train, predict, evaluate, report, stop and resume: whole scripts on a tiny config."""

import base64
import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from common import datasets, metrics
from tests.entry_scripts import assert_the_same, lines
from tests.every_paper import Interrupted

STEPS = 12  # of the tiny config, four per epoch


class TestInterrupted(Interrupted):
    weights = "model.safetensors"
    # in the first and second epoch, and at the end of the second
    stops = ((3, "SIGTERM"), (6, "SIGINT"), (8, "SIGTERM"))
    first, more = 3, 3


def scores(run):
    return json.loads((run / "scores.json").read_text())


def rows(folder):
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_folder(folder):
    """Options for training on all images of a folder."""
    return "--dataset.name", "folder", "--dataset.path", folder, "--dataset.n_images", "null"


def write_images(folder, images):
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{i:03d}.png")
    return folder


# ---- one run, from the images to the report


def test_pipeline_prints_the_run_folder_only(finished_run):
    answer, run = finished_run
    assert answer.stdout == f"{run}\n" and run.name.endswith("_whole")


def test_run_folder_has_all_files(finished_run):
    _, run = finished_run
    names = "config.yml meta.json train.log metrics.jsonl checkpoints baseline.npz predictions.npz "
    names += "predictions.csv scores.json report.html images/captions.json images/prototypes.png "
    names += "images/prototypes.gif images/queries.png images/queries.gif "
    names += "images/clusters/00/prototype.png images/clusters/03/prototype.png"
    assert [name for name in names.split() if not (run / name).exists()] == []
    meta = json.loads((run / "meta.json").read_text())
    assert (meta["status"], meta["device"]) == ("done", "cpu")
    assert meta["dataset_checksum"] and "torch" in meta["versions"]


def test_every_image_has_one_row_with_its_nearest_cluster(finished_run):
    _, run = finished_run
    table, arrays = rows(run), np.load(run / "predictions.npz")
    assert len(table) == len({row["path"] for row in table}) == 120
    nearest, second = np.sort(arrays["distances"], axis=1)[:, :2].T
    assert [int(row["cluster"]) for row in table] == arrays["distances"].argmin(1).tolist()
    assert arrays["clusters"].tolist() == arrays["distances"].argmin(1).tolist()
    # six significant digits in the CSV
    np.testing.assert_allclose([float(row["distance"]) for row in table], nearest, rtol=1e-5)
    margins = [float(row["margin"]) for row in table]
    np.testing.assert_allclose(margins, second - nearest, rtol=1e-5)


def test_scores_match_predictions_and_baseline(finished_run):
    _, run = finished_run
    arrays, saved = np.load(run / "predictions.npz"), scores(run)
    labels, clusters = arrays["labels"], arrays["clusters"]
    assert saved["acc"] == metrics.clustering_accuracy(labels, clusters)
    assert saved["nmi"] == metrics.nmi(labels, clusters) and saved["n"] == 120
    assert saved["loss"] == pytest.approx(arrays["distances"].min(1).mean())
    baseline = np.load(run / "baseline.npz")["clusters"]
    assert saved["baseline"]["acc"] == metrics.clustering_accuracy(labels, baseline)


def test_report_contains_the_figures(finished_run):
    _, run = finished_run
    page = (run / "report.html").read_text()
    for name in ("prototypes.png", "prototypes.gif", "queries.png", "queries.gif"):
        content = base64.b64encode((run / "images" / name).read_bytes()).decode()
        assert content in page, name
    assert "Transformation predictions" in page and str(scores(run)["acc"])[:5] in page


def test_metrics_have_every_epoch_and_check(finished_run):
    _, run = finished_run
    epochs = [line for line in lines(run) if line["split"] == "epoch"]
    assert [line["transformations"] for line in epochs] == [1, 2, 3]
    assert [line["step"] for line in epochs] == [4, 8, 12]
    checks = [line for line in lines(run) if line["split"] == "train"]
    proportions = [[line[name] for name in line if "proportion/" in name] for line in checks]
    assert [line["step"] for line in checks] == [3, 6, 9, 12]
    assert [len(values) for values in proportions] == [6, 5, 4, 4]  # after 4 and 8 steps one goes
    totals = [sum(values) for values in proportions]
    np.testing.assert_allclose(totals, 1, atol=1e-4)  # rounded to five digits each


def test_same_seed_gives_the_same_run_in_a_new_folder(checkout, finished_run):
    _, expected = finished_run
    run = checkout.train("--tag", "whole").run
    assert run.name == f"{expected.name}_2"
    assert_the_same(run, expected)
    assert checkout.score(run) == scores(expected)
    other = checkout.train("--training.seed", 1).run
    first, second = (
        load_file(each / f"checkpoints/{STEPS:09d}/model.safetensors") for each in (run, other)
    )
    assert first["prototypes"].tobytes() != second["prototypes"].tobytes()


# ---- ways to start


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        (".", ["-m", "dti_torch.evaluate"]),
        ("dti_torch", ["evaluate.py"]),
        ("/", ["{paper}/evaluate.py"]),
    ],
)
def test_evaluate_starts_from_any_folder_without_pytorch(
    checkout, finished_run, tmp_path, folder, command
):
    _, run = finished_run
    (tmp_path / "torch.py").write_text("raise ImportError('evaluate.py loads PyTorch')")
    command = [word.format(paper=checkout.paper) for word in command]
    name = f"{run.parent.name}/{run.name}"  # looked up in the paper's runs/ as well
    answer = subprocess.run(
        [sys.executable, *command, name],
        cwd=checkout.path / folder,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (answer.returncode, answer.stdout) == (0, ""), answer.stderr


@pytest.mark.parametrize(
    ("folder", "script"), [(".", "dti_torch.train"), ("dti_torch", "train.py")]
)
def test_train_starts_as_module_and_in_its_folder(checkout, folder, script):
    # fails once all is imported; pipeline.sh starts it by its path
    answer = checkout(script, "--model.n_prototypes", 0, cwd=folder)
    assert answer.err == "error: model.n_prototypes is 0: expected 1 or more\n"


# ---- new images


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits").images


def test_pred_of_a_folder_gives_the_clusters_of_training(checkout, finished_run, tmp_path, digits):
    _, run = finished_run
    arrays = np.load(run / "predictions.npz")
    paths = [row["path"] for row in rows(run)[:20]]
    shown = digits[[int(path.split("/")[-1]) for path in paths]]
    folder = write_images(tmp_path / "photos", shown)
    answer = checkout.pred(run, "--input", folder)
    assert answer.code == 0, answer.err
    again = np.load(run / "predictions_photos/predictions.npz")
    assert again["clusters"].tolist() == arrays["clusters"][:20].tolist()
    # another batch size changes the order of sums, perhaps in bfloat16
    np.testing.assert_allclose(again["distances"], arrays["distances"][:20], rtol=0.02)
    assert [row["path"] for row in rows(run / "predictions_photos")] == sorted(
        map(str, folder.iterdir())
    )


def test_pred_of_an_rgb_photo_with_gray_prototypes(checkout, finished_run, tmp_path):
    _, run = finished_run
    photo = np.random.default_rng(0).integers(0, 256, (30, 47, 3), np.uint8)
    path, out = tmp_path / "one photo.jpg", tmp_path / "new" / "out"
    Image.fromarray(photo).save(path)
    before = (run / "predictions.csv").read_bytes()
    answer = checkout.pred(run, "--input", path, "--out", out)
    assert (answer.code, answer.out) == (0, ""), answer.err
    assert [row["path"] for row in rows(out)] == [str(path)]
    assert np.load(out / "predictions.npz")["distances"].shape == (1, 4)
    assert (run / "predictions.csv").read_bytes() == before


def test_pred_keeps_files_that_are_not_its_own(checkout, finished_run, tmp_path, digits):
    _, run = finished_run
    folder = write_images(tmp_path / "photos", digits[:2])
    mine = tmp_path / "images/clusters/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("do not lose me")
    assert checkout.pred(run, "--input", folder, "--out", tmp_path).code == 0
    assert mine.exists()


def test_pred_of_gray_photos_with_rgb_prototypes(checkout, tmp_path, digits):
    run = checkout.train("--dataset.colorize", "true", "--training.n_epochs", 1).run
    assert checkout.score(run)["n"] == 120
    folder = write_images(tmp_path / "gray", digits[:3])
    answer = checkout.pred(run, "--input", folder)
    assert answer.code == 0 and len(rows(run / "predictions_gray")) == 3, answer.err


def test_pred_crops_photos_as_in_training(checkout, tmp_path):
    # of different sizes, so that they are cropped; labels are the subfolders
    random = np.random.default_rng(0)
    for name, sizes in {"a": [(20, 40), (30, 10)], "b": [(16, 16), (40, 20)]}.items():
        shown = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        write_images(tmp_path / "photos" / name, shown)
    options = ["--dataset.size", 16, "--model.n_prototypes", 2, "--training.lr", 0.001]
    answer = checkout.train(*of_folder(tmp_path / "photos"), *options)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run).keys() >= {"acc", "baseline", "loss"}
    assert checkout.pred(answer.run, "--input", tmp_path / "photos").code == 0
    parts = [answer.run, answer.run / "predictions_photos"]
    first, second = (np.load(part / "predictions.npz")["distances"] for part in parts)
    np.testing.assert_array_equal(second, first)


def test_unlabeled_images_have_galleries_but_no_accuracy(checkout, tmp_path, digits):
    folder = write_images(tmp_path / "photos", digits[:30])
    options = ["--training.n_epochs", 1, "--model.n_prototypes", 2]
    run = checkout.train(*of_folder(folder), *options).run
    saved = checkout.score(run)
    assert "loss" in saved and not {"acc", "nmi", "baseline"} & saved.keys()
    names = {path.stem for path in run.glob("images/clusters/00/*.png")}
    assert names == {"prototype", "closest", "random", "farthest", "average"}
    assert checkout("common.report", run).code == 0


def test_mixture_has_finite_scores_and_a_figure_of_deviations(checkout):
    run = checkout.train("--model.name", "dtigmm", "--model.init", "kmeans").run
    assert np.isfinite(checkout.score(run)["loss"])
    assert (run / "images/deviations.png").exists()


# ---- stopped and resumed


def test_scores_of_a_resumed_run_equal_the_uninterrupted_run(checkout, finished_run):
    _, expected = finished_run
    run = checkout.train(kill_at="7:SIGTERM").run
    checkout.resume(run)
    assert checkout.score(run) == scores(expected)
    names = [path.name for path in sorted(expected.glob("evolution/*"))]
    assert [path.name for path in sorted(run.glob("evolution/*"))] == names


def test_run_stopped_in_its_first_epoch_has_predictions_and_report(checkout):
    run = checkout.train(kill_at="2:SIGTERM").run
    assert checkout.score(run)["n"] == 120
    assert checkout("common.report", run).code == 0


def test_resumed_mixture_equals_the_uninterrupted_run(checkout):
    mixture = ["--model.name", "dtigmm", "--training.n_epochs", 3]
    expected, run = checkout.train(*mixture).run, checkout.train(*mixture, kill_at="6:SIGTERM").run
    assert checkout.resume(run).code == 0
    assert_the_same(run, expected)
