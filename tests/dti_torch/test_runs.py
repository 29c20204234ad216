"""Train, predict, evaluate, report, stop and go on: whole scripts on a tiny config."""

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

STEPS = 12  # of the tiny config, four an epoch


class TestInterrupted(Interrupted):
    weights = "model.safetensors"
    # in the first and second epoch, and after the last batch of one
    stops = ((3, "SIGTERM"), (6, "SIGINT"), (8, "SIGTERM"))
    first, more = 3, 3


def scores(run):
    return json.loads((run / "scores.json").read_text())


def rows(folder):
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_images(folder, images):
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image.squeeze()).save(folder / f"{i:03d}.png")
    return folder


# ---- one run, from the images to the report


def test_the_pipeline_prints_the_run_folder_alone(finished_run):
    answer, run = finished_run
    assert answer.stdout == f"{run}\n" and run.name.endswith("_whole")


def test_a_run_folder_holds_what_every_paper_has(finished_run):
    _, run = finished_run
    names = "config.yml meta.json train.log metrics.jsonl checkpoints baseline.npz predictions.npz "
    names += "predictions.csv scores.json report.html images/captions.json images/prototypes.png "
    names += "images/prototypes.gif images/queries.png images/queries.gif "
    names += "images/clusters/00/prototype.png images/clusters/03/prototype.png"
    assert [name for name in names.split() if not (run / name).exists()] == []
    meta = json.loads((run / "meta.json").read_text())
    assert (meta["status"], meta["device"]) == ("done", "cpu")
    assert meta["dataset_checksum"] and "torch" in meta["versions"]


def test_every_image_has_one_row_and_its_nearest_cluster(finished_run):
    _, run = finished_run
    table, arrays = rows(run), np.load(run / "predictions.npz")
    assert len(table) == len({row["path"] for row in table}) == 120
    nearest, second = np.sort(arrays["distances"], axis=1)[:, :2].T
    assert [int(row["cluster"]) for row in table] == arrays["distances"].argmin(1).tolist()
    assert arrays["clusters"].tolist() == arrays["distances"].argmin(1).tolist()
    # written with six digits
    np.testing.assert_allclose([float(row["distance"]) for row in table], nearest, rtol=1e-5)
    margins = [float(row["margin"]) for row in table]
    np.testing.assert_allclose(margins, second - nearest, rtol=1e-5)


def test_scores_are_those_of_the_predictions_beside_the_baseline(finished_run):
    _, run = finished_run
    arrays, found = np.load(run / "predictions.npz"), scores(run)
    labels, clusters = arrays["labels"], arrays["clusters"]
    assert found["acc"] == metrics.clustering_accuracy(labels, clusters)
    assert found["nmi"] == metrics.nmi(labels, clusters) and found["n"] == 120
    assert found["loss"] == pytest.approx(arrays["distances"].min(1).mean())
    baseline = np.load(run / "baseline.npz")["clusters"]
    assert found["baseline"]["acc"] == metrics.clustering_accuracy(labels, baseline)


def test_the_report_holds_the_pictures(finished_run):
    _, run = finished_run
    page = (run / "report.html").read_text()
    for name in ("prototypes.png", "prototypes.gif", "queries.png", "queries.gif"):
        content = base64.b64encode((run / "images" / name).read_bytes()).decode()
        assert content in page, name
    assert "Transformation predictions" in page and str(scores(run)["acc"])[:5] in page


def test_the_curves_show_every_epoch_and_transformation(finished_run):
    _, run = finished_run
    epochs = [line for line in lines(run) if line["split"] == "epoch"]
    assert [line["transformations"] for line in epochs] == [1, 2, 3]
    assert [line["step"] for line in epochs] == [4, 8, 12]
    looks = [line for line in lines(run) if line["split"] == "train"]
    shares = [sum(line[f"proportion/{k}"] for k in range(4)) for line in looks]
    assert [line["step"] for line in looks] == [3, 6, 9, 12]
    np.testing.assert_allclose(shares, 1, atol=1e-4)  # rounded to five digits each


def test_the_same_seed_gives_the_same_run_in_a_folder_of_its_own(checkout, finished_run):
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


# ---- the ways to start


@pytest.mark.parametrize(
    ("place", "command"),
    [
        (".", ["-m", "dti_torch.evaluate"]),
        ("dti_torch", ["evaluate.py"]),
        ("/", ["{paper}/evaluate.py"]),
    ],
)
def test_evaluate_starts_from_anywhere_and_without_pytorch(
    checkout, finished_run, tmp_path, place, command
):
    _, run = finished_run
    (tmp_path / "torch.py").write_text("raise ImportError('evaluate.py loads PyTorch')")
    command = [word.format(paper=checkout.paper) for word in command]
    name = f"{run.parent.name}/{run.name}"  # also found under the paper's runs/
    answer = subprocess.run(
        [sys.executable, *command, name],
        cwd=checkout.path / place,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (answer.returncode, answer.stdout) == (0, ""), answer.stderr


@pytest.mark.parametrize(("place", "script"), [(".", "dti_torch.train"), ("dti_torch", "train.py")])
def test_train_starts_as_a_module_and_in_its_folder(checkout, place, script):
    # refused as soon as all is loaded; pipeline.sh has started it by its path
    answer = checkout(script, "--model.n_prototypes", 0, cwd=place)
    assert answer.err == "error: model.n_prototypes is 0: expected 1 or more\n"


# ---- new images


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits").images


def test_a_folder_of_images_gets_the_clusters_that_they_had_in_training(
    checkout, finished_run, tmp_path, digits
):
    _, run = finished_run
    arrays = np.load(run / "predictions.npz")
    paths = [row["path"] for row in rows(run)[:20]]
    shown = digits[[int(path.split("/")[-1]) for path in paths]]
    folder = write_images(tmp_path / "photos", shown)
    answer = checkout.pred(run, "--input", folder)
    assert answer.code == 0, answer.err
    again = np.load(run / "predictions_photos/predictions.npz")
    assert again["clusters"].tolist() == arrays["clusters"][:20].tolist()
    # a batch of another size sums in another order, perhaps in bfloat16
    np.testing.assert_allclose(again["distances"], arrays["distances"][:20], rtol=0.02)
    assert [row["path"] for row in rows(run / "predictions_photos")] == sorted(
        map(str, folder.iterdir())
    )


def test_one_rgb_photo_of_another_size_meets_gray_prototypes(checkout, finished_run, tmp_path):
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


def test_out_keeps_the_files_of_others(checkout, finished_run, tmp_path, digits):
    _, run = finished_run
    folder = write_images(tmp_path / "photos", digits[:2])
    mine = tmp_path / "images/clusters/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("do not lose me")
    assert checkout.pred(run, "--input", folder, "--out", tmp_path).code == 0
    assert mine.exists()


def test_gray_photos_meet_rgb_prototypes(checkout, tmp_path, digits):
    run = checkout.train("--dataset.colorize", "true", "--training.n_epochs", 1).run
    assert checkout.score(run)["n"] == 120
    folder = write_images(tmp_path / "gray", digits[:3])
    answer = checkout.pred(run, "--input", folder)
    assert answer.code == 0 and len(rows(run / "predictions_gray")) == 3, answer.err


def test_photos_in_pred_are_cut_as_in_training(checkout, tmp_path):
    # sizes differ, so that the centre square counts; labels are the sub-folders
    random = np.random.default_rng(0)
    for name, sizes in {"a": [(20, 40), (30, 10)], "b": [(16, 16), (40, 20)]}.items():
        shown = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
        write_images(tmp_path / "photos" / name, shown)
    options = [
        "--dataset.name",
        "folder",
        "--dataset.path",
        tmp_path / "photos",
        "--dataset.size",
        16,
    ]
    options += ["--dataset.n_images", "null", "--model.n_prototypes", 2, "--training.lr", 0.001]
    answer = checkout.train(*options)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run).keys() >= {"acc", "baseline", "loss"}
    assert checkout.pred(answer.run, "--input", tmp_path / "photos").code == 0
    parts = [answer.run, answer.run / "predictions_photos"]
    finished_run, again = (np.load(part / "predictions.npz")["distances"] for part in parts)
    np.testing.assert_array_equal(again, finished_run)


def test_unlabelled_images_have_galleries_and_no_accuracy(checkout, tmp_path, digits):
    folder = write_images(tmp_path / "photos", digits[:30])
    options = ["--dataset.name", "folder", "--dataset.path", folder, "--dataset.n_images", "null"]
    run = checkout.train(*options, "--training.n_epochs", 1, "--model.n_prototypes", 2).run
    found = checkout.score(run)
    assert "loss" in found and not {"acc", "nmi", "baseline"} & found.keys()
    names = {path.name for path in run.glob("images/clusters/00/*.png")}
    assert names >= {"prototype.png", "closest.png", "random.png", "average.png"}
    assert checkout("common.report", run).code == 0


def test_the_mixture_has_finite_scores_and_shows_its_deviations(checkout):
    run = checkout.train("--model.name", "dtigmm", "--model.init", "kmeans").run
    assert np.isfinite(checkout.score(run)["loss"])
    assert (run / "images/deviations.png").exists()


# ---- stopped and gone on


def test_scores_after_a_stop_are_those_of_a_run_never_stopped(checkout, finished_run):
    _, expected = finished_run
    run = checkout.train(kill_at="7:SIGTERM").run
    checkout.resume(run)
    assert checkout.score(run) == scores(expected)
    names = [path.name for path in sorted(expected.glob("evolution/*"))]
    assert [path.name for path in sorted(run.glob("evolution/*"))] == names


def test_a_run_stopped_in_its_first_epoch_has_predictions_and_a_report(checkout):
    run = checkout.train(kill_at="2:SIGTERM").run
    assert checkout.score(run)["n"] == 120
    assert checkout("common.report", run).code == 0


def test_a_stopped_mixture_goes_on_as_if_never_stopped(checkout):
    mixture = ["--model.name", "dtigmm", "--training.n_epochs", 3]
    expected, run = checkout.train(*mixture).run, checkout.train(*mixture, kill_at="6:SIGTERM").run
    assert checkout.resume(run).code == 0
    assert_the_same(run, expected)
