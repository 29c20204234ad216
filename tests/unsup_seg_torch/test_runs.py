"""Whole runs: what they leave behind, how they go on, and that they are exact."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from common import images
from tests.entry_scripts import assert_the_same, lines, weights
from tests.every_paper import Interrupted

FILES = "config.yml meta.json train.log metrics.jsonl scores.json predictions.csv report.html"
PICTURES = "picture contours labels overlay mean_colour reconstruction ucm baseline"


class TestInterrupted(Interrupted):
    weights = "model.safetensors"
    # in the first and second epoch, and after the last batch of one
    stops = ((3, "SIGTERM"), (6, "SIGINT"), (8, "SIGTERM"))
    first, more = 3, 3


def test_a_whole_run_leaves_all_its_files_and_one_line(whole):
    answer, run = whole
    assert answer.stdout == f"{run}\n"
    assert [name for name in FILES.split() if not (run / name).is_file()] == []
    for name in PICTURES.split():
        assert (run / f"images/temple/{name}.png").exists(), name
    assert images.load(run / "images/temple/overlay.png").shape == (40, 60, 3)
    with Image.open(run / "images/evolution.gif") as animation:
        assert animation.n_frames == 3
    assert images.load(run / "images/overview.png").shape[1] > 6 * 40
    assert json.loads((run / "meta.json").read_text())["status"] == "done"


def test_every_picture_has_labels_regions_and_scales(whole):
    _, run = whole
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["flower", "temple"]
    for row in rows:
        size = int(row["height"]), int(row["width"])
        labels, regions = (
            np.asarray(Image.open(run / kind / f"{row['name']}.png"))
            for kind in ("labels", "regions")
        )
        scales = np.load(run / "scales" / f"{row['name']}.npy")
        assert labels.shape == regions.shape == scales.shape[1:] == size
        assert len(np.unique(labels)) == int(row["n_labels"]) <= 4
        assert regions.max() + 1 == int(row["n_regions"])
        n_regions = [int(scale.max()) for scale in scales]
        assert n_regions == sorted(n_regions, reverse=True)


def test_a_stop_after_an_epoch_keeps_its_frame(checkout, whole):
    run = checkout.train(strike="8:SIGTERM").run
    checkout.resume(run)
    names = [path.name for path in sorted(whole[1].glob("evolution/*"))]
    assert [path.name for path in sorted(run.glob("evolution/*"))] == names


def test_scores_are_means_over_the_pictures(whole):
    _, run = whole
    scores = json.loads((run / "scores.json").read_text())
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        counts = [int(row["n_regions"]) for row in csv.DictReader(file)]
    assert (scores["n"], scores["n_regions"]) == (2, np.mean(counts))


def test_the_same_seed_twice_gives_the_same_weights(checkout, whole):
    assert_the_same(checkout.train().run, whole[1])
    other = checkout.train("--training.seed", 1).run
    assert weights(other)["model.safetensors"] != weights(whole[1])["model.safetensors"]


@pytest.mark.parametrize("options", [("--training.mode", "joint"), ("--training.optimizer", "sgd")])
def test_other_ways_to_train_run_and_lower_both_losses(checkout, options):
    run = checkout.train(*options, "--training.n_epochs", 12).run
    first, *_, last = lines(run)
    assert last["reconstruction"] < first["reconstruction"]
    assert last["soft_ncut"] < first["soft_ncut"]


def test_the_command_of_the_original_repository_works_in_the_folder(checkout, photos):
    words = "--model=wnet --batch-size=16 --epochs=1 --learning-rate=0.001 --pretrained"
    options = [*words.split(), "--save-model", "--save-logs", "--config", "tiny.yml"]
    answer = checkout("train", *options, cwd="unsup_seg_torch")
    assert answer.code == 0, answer.err
    assert answer.err.count("there are no pretrained weights") == 1
    run = answer.run
    assert (run / "images/losses.png").exists() and (run / "model.safetensors").exists()
    given = checkout.train("--model.weights", run / "model.safetensors", "--training.n_epochs", 1)
    assert given.code == 0 and "weights of" in given.err, given.err


def test_new_pictures_are_segmented_beside_the_run(checkout, whole, photos, tmp_path):
    _, run = whole
    answer = checkout.pred(run, "--input", photos, "--out", tmp_path / "new", "--frames", 2)
    assert answer.code == 0, answer.err
    with Image.open(tmp_path / "new/images/frames.gif") as animation:
        assert animation.n_frames == 2
    found, expected = (np.load(folder / "scales/temple.npy") for folder in (tmp_path / "new", run))
    assert np.array_equal(found, expected)


def test_segments_are_scored_against_people(checkout, whole, photos, tmp_path):
    root = tmp_path / "data"
    for kind in ("images", "groundTruth"):
        (root / f"BSDS500/data/{kind}/val").mkdir(parents=True)
    halves = np.ones((40, 60), np.uint16)
    halves[:, 30:] = 2
    cells = np.empty((1, 2), object)
    cells[0, :] = [{"Segmentation": halves, "Boundaries": np.zeros_like(halves)}] * 2
    savemat(root / "BSDS500/data/groundTruth/val/temple.mat", {"groundTruth": cells})
    Image.open(photos / "temple.png").save(root / "BSDS500/data/images/val/temple.png")
    options = ["--dataset.name", "bsds500", "--dataset.path", "null", "--dataset.root", root]
    options += ["--dataset.split", "val", "--training.n_epochs", 1]
    answer = checkout.train(*options)
    assert answer.code == 0, answer.err
    assert checkout.pred(answer.run).code == 0
    assert checkout("unsup_seg_torch/evaluate.py", answer.run, "--boundaries").code == 0
    scores = json.loads((answer.run / "scores.json").read_text())
    assert 0 < scores["covering_ods"] <= scores["covering_ois"] <= scores["covering_best"] <= 1
    assert {"pri_ois", "vi_ods", "f_ods"} <= scores.keys()
    assert scores["baseline"]["name"].startswith("Felzenszwalb")
