"""Whole runs: their files, exact resumption, segmentation of new images and videos."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from common import images
from tests.entry_scripts import assert_the_same, lines, one_line, weights
from tests.every_paper import Interrupted

FILES = "config.yml meta.json train.log metrics.jsonl scores.json predictions.csv report.html"
FIGURES = "image contours labels overlay mean_color reconstruction ucm baseline"


class TestInterrupted(Interrupted):
    weights = "model.safetensors"
    # in the first and second epoch, and after the last batch of one
    stops = ((3, "SIGTERM"), (6, "SIGINT"), (8, "SIGTERM"))
    first, more = 3, 3


def read_predictions(run):
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_finished_run_has_all_files_and_prints_its_folder(finished_run):
    answer, run = finished_run
    assert answer.stdout == f"{run}\n"
    assert [name for name in FILES.split() if not (run / name).is_file()] == []
    for name in FIGURES.split():
        assert (run / f"images/temple/{name}.png").exists(), name
    assert images.load(run / "images/temple/overlay.png").shape == (40, 60, 3)
    with Image.open(run / "images/evolution.gif") as animation:
        assert animation.n_frames == 3
    assert images.load(run / "images/overview.png").shape[1] > 6 * 40
    assert json.loads((run / "meta.json").read_text())["status"] == "done"


def test_every_image_has_labels_regions_and_scales(finished_run):
    _, run = finished_run
    rows = read_predictions(run)
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


def test_stop_after_an_epoch_keeps_its_evolution_frame(checkout, finished_run):
    run = checkout.train(kill_at="8:SIGTERM").run
    checkout.resume(run)
    names = [path.name for path in sorted(finished_run[1].glob("evolution/*"))]
    assert [path.name for path in sorted(run.glob("evolution/*"))] == names


def test_scores_are_means_over_the_images(finished_run):
    _, run = finished_run
    scores = json.loads((run / "scores.json").read_text())
    counts = [int(row["n_regions"]) for row in read_predictions(run)]
    assert (scores["n"], scores["n_regions"]) == (2, np.mean(counts))


def test_same_seed_gives_the_same_weights(checkout, finished_run):
    assert_the_same(checkout.train().run, finished_run[1])
    other = checkout.train("--training.seed", 1).run
    assert weights(other)["model.safetensors"] != weights(finished_run[1])["model.safetensors"]


@pytest.mark.parametrize("options", [("--training.mode", "joint"), ("--training.optimizer", "sgd")])
def test_joint_and_sgd_training_lower_both_losses(checkout, options):
    run = checkout.train(*options, "--training.n_epochs", 12).run
    first, *_, last = lines(run)
    assert last["reconstruction"] < first["reconstruction"]
    assert last["soft_ncut"] < first["soft_ncut"]


def test_original_command_runs_in_the_folder(checkout):
    words = "--model=wnet --batch-size=16 --epochs=30 --learning-rate=0.001 --pretrained"
    words += " --save-model --save-logs"
    options = ["--dataset.n_images", 1, "--training.crops", 2, "--training.n_epochs", 2]
    options += ["--model.width", 4]
    answer = checkout("train", *words.split(), *options, cwd="unsup_seg_torch")
    assert answer.code == 0, answer.err
    assert answer.err.count("no pretrained weights of W-Net are published") == 1
    run = answer.run
    assert (run / "images/losses.png").exists() and (run / "model.safetensors").exists()
    text = (run / "config.yml").read_text()
    assert "name: photographs" in text and "batch_size: 16" in text and "lr: 0.001" in text
    options += ["--config", "embedded.yml", "--model.weights", run / "model.safetensors"]
    answer = checkout("unsup_seg_torch/train.py", *options)
    assert answer.code == 0 and "weights of" in answer.err, answer.err


def test_new_images_are_segmented_like_those_of_the_run(checkout, finished_run, photos, tmp_path):
    _, run = finished_run
    answer = checkout.pred(run, "--input", photos, "--out", tmp_path / "new")
    assert answer.code == 0, answer.err
    assert not (tmp_path / "new/images/frames.gif").exists()  # they are not of one size
    scales, expected = (np.load(folder / "scales/temple.npy") for folder in (tmp_path / "new", run))
    assert np.array_equal(scales, expected)


def test_regions_are_scored_against_human_annotators(checkout, annotated):
    options = ["--dataset.name", "bsds500", "--dataset.path", "null", "--dataset.root", annotated]
    options += ["--dataset.split", "val", "--training.n_epochs", 1]
    answer = checkout.train(*options)
    assert answer.code == 0, answer.err
    assert checkout.pred(answer.run).code == 0
    assert checkout("unsup_seg_torch/evaluate.py", answer.run, "--boundaries").code == 0
    scores = json.loads((answer.run / "scores.json").read_text())
    assert 0 < scores["covering_ods"] <= scores["covering_ois"] <= scores["covering_best"] <= 1
    assert {"pri_ois", "vi_ods", "f_ods"} <= scores.keys()
    assert scores["baseline"]["name"].startswith("Felzenszwalb")


def test_frames_of_a_video_become_an_animation_in_order(checkout, finished_run, tmp_path):
    grays = (0, 120, 240)
    frames = [np.full((20, 30, 3), gray, np.uint8) for gray in grays]
    for number, frame in zip((8, 9, 10), frames, strict=True):
        images.save_png(tmp_path / f"frames/{number}.png", frame)
    images.save_gif(tmp_path / "video.gif", frames)
    names_of = {"frames": "8 9 10", "video.gif": "frame_00001 frame_00002 frame_00003"}
    for source, names in names_of.items():
        out = tmp_path / f"out_{source}"
        answer = checkout.pred(finished_run[1], "--input", tmp_path / source, "--out", out)
        assert answer.code == 0, answer.err
        for name in names.split():
            assert (out / f"regions/{name}.png").exists()
            assert (out / f"images/{name}/overlay.png").exists()
        with Image.open(out / "images/frames.gif") as animation:
            assert animation.n_frames == 3
            for i, gray in enumerate(grays):
                animation.seek(i)
                # on the left the frame, on the right its labels
                assert animation.convert("L").getpixel((0, 0)) == pytest.approx(gray, abs=8)


def test_negative_frames_and_broken_video_are_refused(checkout, finished_run, tmp_path):
    run, video, out = finished_run[1], tmp_path / "video.mp4", tmp_path / "new"
    answer = checkout.pred(run, "--input", tmp_path, "--frames", -1)
    assert "--frames is -1: expected 0 or more" in one_line(answer)
    for option, value, reason in (
        ("--mass", 0, "--mass is 0.0: expected more than 0, up to 1"),
        ("--mass", "nan", "--mass is nan"),
        ("--size", 0, "--size is 0: expected 1 or more"),
        ("--max-frames", -5, "--max-frames is -5: expected 1 or more"),
        ("--segments", 0, "--segments is 0: expected 2 to 64"),
    ):
        assert reason in one_line(checkout.pred(run, option, value))
    video.write_text("no video")
    reason = one_line(checkout.pred(run, "--input", video, "--out", out))
    assert "is not a readable video" in reason
    assert not out.exists()


def test_ade20k_images_are_trained_on_and_scored(checkout, photos, tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for split in ("training", "validation"):
        for path in photos.iterdir():
            labels = np.ones((40, 60) if path.stem == "temple" else (50, 45), np.uint8)
            labels[:, 20:] = 150
            images.save_png(root / f"annotations/{split}/{path.stem}.png", labels)
            (root / f"images/{split}").mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.save(root / f"images/{split}/{path.stem}.jpg")
    options = ["--config", "ade20k.yml", "--dataset.root", tmp_path, "--model.width", 4]
    options += ["--training.n_epochs", 1]
    answer = checkout("unsup_seg_torch/train.py", *options)
    assert answer.code == 0, answer.err
    scores = checkout.score(answer.run)
    assert scores["n"] == 2 and 0 < scores["covering_ods"] <= scores["covering_best"] <= 1
