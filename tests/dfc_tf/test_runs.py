"""Whole runs: what they leave behind, how they go on, and that they are exact."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from common import images
from tests.entry_scripts import assert_the_same, weights
from tests.every_paper import Interrupted

FILES = "config.yml meta.json train.log metrics.jsonl scores.json predictions.csv report.html"
PICTURES = "overlay contours palette mean_colour picture baseline"


class TestInterrupted(Interrupted):
    unready = "train.py --resume"
    steps_per_kill = 2
    stops = ((1, "SIGTERM"), (3, "SIGINT"), (5, "SIGTERM"))
    first, more = 1, 2

    def assert_the_same(self, run, finished_run):
        assert_the_same(run, finished_run[1])
        assert np.array_equal(labels(run), labels(finished_run[1]))


def labels(run, name="coffee"):
    with np.load(run / "labels" / f"{name}.npz") as file:
        return file["labels"]


def frames(folder, n=3):
    """Pictures of a square that moves."""
    folder.mkdir()
    for i in range(n):
        pixels = np.full((20, 30, 3), (30, 60, 90), np.uint8)
        pixels[5:15, 4 + 3 * i : 14 + 3 * i] = (220, 180, 40)
        Image.fromarray(pixels).save(folder / f"frame {i}.png")
    return folder


def test_a_whole_run_leaves_all_its_files_and_one_line(finished_run):
    answer, run = finished_run
    assert answer.stdout == f"{run}\n"
    assert [name for name in FILES.split() if not (run / name).is_file()] == []
    for name in PICTURES.split():
        assert images.load(run / f"images/{name}.png").shape == (40, 60, 3), name
    with Image.open(run / "images/evolution.gif") as animation:
        assert animation.n_frames > 3
    assert json.loads((run / "meta.json").read_text())["status"] == "done"


def test_the_label_map_is_the_same_in_all_its_files(finished_run):
    _, run = finished_run
    found = np.load(run / "segments/coffee/labels.npy")
    with Image.open(run / "segments/coffee/labels.png") as picture:
        assert picture.mode == "I;16" and np.array_equal(np.array(picture), found)
    with open(run / "segments/coffee/areas.csv", newline="") as file:
        areas = list(csv.DictReader(file))
    assert [int(row["pixels"]) for row in areas] == np.bincount(found.ravel()).tolist()
    assert sum(float(row["share"]) for row in areas) == pytest.approx(1, abs=1e-4)
    for row in areas:
        ys, xs = np.nonzero(found == int(row["label"]))
        box = [int(row[side]) for side in ("left", "top", "right", "bottom")]
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        with Image.open(run / f"segments/coffee/masks/{int(row['label']):03d}.png") as mask:
            assert np.array_equal(np.array(mask)[..., 3] == 255, found == int(row["label"]))
    scores = json.loads((run / "scores.json").read_text())
    assert (scores["n"], scores["n_labels"]) == (1, len(areas))


def test_every_look_at_the_losses_is_a_line(finished_run):
    _, run = finished_run
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert {"similarity", "continuity", "n_labels", "iterations_per_second"} <= set(lines[0])


def test_the_same_seed_gives_the_same_run_and_another_one_another(checkout, finished_run):
    _, run = finished_run
    again, other = checkout.train().run, checkout.train("--training.seed", 1).run
    assert weights(again) == weights(run) and np.array_equal(labels(again), labels(run))
    assert not np.array_equal(labels(other), labels(run))


def test_a_second_run_gets_a_suffix(checkout):
    first, second = (checkout.train("--tag", "twice").run for _ in range(2))
    assert second.name == f"{first.name}_2"


def test_the_scripts_run_in_three_ways(checkout, finished_run):
    for command, cwd in (("dfc_tf/pred.py", "."), ("pred.py", "dfc_tf"), ("dfc_tf.pred", ".")):
        answer = checkout(
            command, finished_run[1], "--out", checkout.path.parent / "three", cwd=cwd
        )
        assert (answer.code, answer.out) == (0, ""), answer.err


def test_the_config_of_a_run_is_complete(finished_run):
    values = yaml.safe_load((finished_run[1] / "config.yml").read_text())
    assert values["training"]["momentum"] == 0.9 and values["model"]["n_blocks"] == 2


# ---- several pictures


def test_each_picture_of_a_folder_is_as_if_it_were_alone(checkout, tmp_path):
    folder = frames(tmp_path / "my frames")
    run = checkout.train("--dataset.path", folder).run
    alone = checkout.train("--dataset.path", folder / "frame 2.png").run
    assert np.array_equal(labels(run, "frame_2"), labels(alone, "frame_2"))
    checkout.score(run)
    with open(run / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["frame_0", "frame_1", "frame_2"]
    assert all((run / "images" / row["name"] / "overlay.png").exists() for row in rows)


def test_a_stopped_folder_goes_on_with_the_picture_it_was_at(checkout, tmp_path):
    folder = frames(tmp_path / "frames")
    for mode in ("each", "frames", "reference"):
        options = ["--dataset.path", folder, "--dataset.mode", mode]
        finished_run = checkout.train(*options).run
        stopped = checkout.train(*options, kill_at="8:SIGTERM").run
        assert checkout.resume(stopped).code == 0
        assert weights(stopped) == weights(finished_run)
        for i in range(3):
            assert np.array_equal(labels(stopped, f"frame_{i}"), labels(finished_run, f"frame_{i}"))


def test_frames_keep_their_colours(checkout, tmp_path):
    folder = frames(tmp_path / "frames")
    options = ["--dataset.mode", "frames", "--training.n_warm_iterations", 4]
    run = checkout.train("--dataset.path", folder, *options).run
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 12 + 4 + 4
    background = [np.bincount(labels(run, f"frame_{i}")[:3].ravel()).argmax() for i in range(3)]
    assert len(set(background)) == 1


def test_a_reference_network_labels_new_pictures(checkout, tmp_path):
    folder = frames(tmp_path / "frames")
    options = ["--dataset.mode", "reference", "--training.batch_size", 2]
    run = checkout.train("--dataset.path", folder, *options).run
    assert checkout.pred(run).code == 0
    shutil.copy(folder / "frame 1.png", tmp_path / "new.png")
    answer = checkout.pred(run, "--input", tmp_path / "new.png")
    assert answer.code == 0, answer.err
    new = np.load(run / "predictions_new/segments/new/labels.npy")
    assert np.array_equal(new, np.load(run / "segments/frame_1/labels.npy"))


def test_new_pictures_may_be_normalised_as_the_training_was(checkout, tmp_path):
    folder = frames(tmp_path / "frames", n=1)
    options = ["--dataset.mode", "reference", "--model.frozen_statistics", "true"]
    run = checkout.train("--dataset.path", folder, *options).run
    assert checkout.pred(run, "--input", folder, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out/segments/frame_0/labels.npy").exists()


# ---- after the training


def test_a_target_number_of_labels_and_a_smallest_piece(checkout):
    run = checkout.train("--model.n_labels", 3, "--model.min_area", 0.01).run
    assert checkout.score(run)["n_labels"] == 3


def test_scribbles_come_through_the_command_line(checkout, tmp_path):
    folder = frames(tmp_path / "frames", n=1)
    mask = np.full((20, 30), 255, np.uint8)
    mask[7:12, 6:12], mask[2, :] = 4, 9
    Image.fromarray(mask).save(tmp_path / "frames/frame 0_scribble.png")
    options = ["--dataset.path", folder, "--dataset.scribbles", folder / "frame 0_scribble.png"]
    run = checkout.train(*options, "--training.n_iterations", 40).run
    found = labels(run, "frame_0")
    assert (found[7:12, 6:12] == 0).all() and (found[2] == 1).mean() > 0.9
