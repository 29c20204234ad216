"""Complete runs: their files, exact resuming, several images, options."""

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
FIGURES = "overlay contours palette mean_color image baseline"


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
    """Images of a moving square."""
    folder.mkdir()
    for i in range(n):
        pixels = np.full((20, 30, 3), (30, 60, 90), np.uint8)
        pixels[5:15, 4 + 3 * i : 14 + 3 * i] = (220, 180, 40)
        Image.fromarray(pixels).save(folder / f"frame {i}.png")
    return folder


def test_finished_run_has_all_its_files(finished_run):
    pipeline, run = finished_run
    assert pipeline.stdout == f"{run}\n"
    assert [name for name in FILES.split() if not (run / name).is_file()] == []
    for name in FIGURES.split():
        assert images.load(run / f"images/{name}.png").shape == (40, 60, 3), name
    with Image.open(run / "images/evolution.gif") as animation:
        assert animation.n_frames > 3
    assert json.loads((run / "meta.json").read_text())["status"] == "done"


def test_files_of_a_segmentation_agree(finished_run):
    _, run = finished_run
    segments = np.load(run / "segments/coffee/labels.npy")
    with Image.open(run / "segments/coffee/labels.png") as image:
        assert image.mode == "I;16" and np.array_equal(np.array(image), segments)
    with open(run / "segments/coffee/areas.csv", newline="") as file:
        areas = list(csv.DictReader(file))
    assert [int(row["pixels"]) for row in areas] == np.bincount(segments.ravel()).tolist()
    assert sum(float(row["fraction"]) for row in areas) == pytest.approx(1, abs=1e-4)
    for row in areas:
        ys, xs = np.nonzero(segments == int(row["label"]))
        box = [int(row[side]) for side in ("left", "top", "right", "bottom")]
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        with Image.open(run / f"segments/coffee/masks/{int(row['label']):03d}.png") as mask:
            assert np.array_equal(np.array(mask)[..., 3] == 255, segments == int(row["label"]))
    scores = json.loads((run / "scores.json").read_text())
    assert (scores["n"], scores["n_labels"]) == (1, len(areas))


def test_metrics_are_logged_at_every_check(finished_run):
    _, run = finished_run
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert {"similarity", "continuity", "n_labels", "iterations_per_second"} <= set(lines[0])


def test_run_depends_on_the_seed(checkout, finished_run):
    _, run = finished_run
    again, other = checkout.train().run, checkout.train("--training.seed", 1).run
    assert weights(again) == weights(run) and np.array_equal(labels(again), labels(run))
    assert not np.array_equal(labels(other), labels(run))


def test_second_run_gets_a_suffix(checkout):
    first, second = (checkout.train("--tag", "twice").run for _ in range(2))
    assert second.name == f"{first.name}_2"


def test_scripts_run_in_three_ways(checkout, finished_run):
    for command, cwd in (("dfc_tf/pred.py", "."), ("pred.py", "dfc_tf"), ("dfc_tf.pred", ".")):
        out = checkout.path.parent / "three"
        prediction = checkout(command, finished_run[1], "--out", out, cwd=cwd)
        assert (prediction.code, prediction.out) == (0, ""), prediction.err


def test_saved_config_is_complete(finished_run):
    values = yaml.safe_load((finished_run[1] / "config.yml").read_text())
    assert values["training"]["momentum"] == 0.9 and values["model"]["n_blocks"] == 2


@pytest.mark.parametrize("has_scribbles", [False, True])
def test_each_script_decodes_an_image_once(checkout, tmp_path, has_scribbles):
    folder = frames(tmp_path / "frames", n=1)
    options = ["--dataset.path", folder]
    files = ["frame 0.png"]
    if has_scribbles:
        options += ["--dataset.scribbles", scribble(folder)]
        files.append("frame 0_scribble.png")
    training = checkout.train(*options, LOG_DECODES="1")
    prediction = checkout.pred(training.run, LOG_DECODES="1")
    for script in (training, prediction):
        assert script.code == 0, script.err
        lines = [line for line in script.err.splitlines() if line.startswith(f"decoded {folder}")]
        assert lines == [f"decoded {folder / file}" for file in files]


# ---- several images


def test_each_image_of_a_folder_is_trained_on_alone(checkout, tmp_path):
    folder = frames(tmp_path / "my frames")
    run = checkout.train("--dataset.path", folder).run
    alone = checkout.train("--dataset.path", folder / "frame 2.png").run
    assert np.array_equal(labels(run, "frame_2"), labels(alone, "frame_2"))
    checkout.score(run)
    with open(run / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["frame_0", "frame_1", "frame_2"]
    assert all((run / "images" / row["name"] / "overlay.png").exists() for row in rows)


def test_stopped_folder_resumes_within_an_image(checkout, tmp_path):
    folder = frames(tmp_path / "frames")
    for mode in ("each", "frames", "reference"):
        options = ["--dataset.path", folder, "--dataset.mode", mode]
        finished = checkout.train(*options).run
        stopped = checkout.train(*options, kill_at="8:SIGTERM").run
        assert checkout.resume(stopped).code == 0
        assert weights(stopped) == weights(finished)
        for i in range(3):
            assert np.array_equal(labels(stopped, f"frame_{i}"), labels(finished, f"frame_{i}"))


def test_frames_keep_their_labels(checkout, tmp_path):
    folder = frames(tmp_path / "frames")
    options = ["--dataset.mode", "frames", "--training.n_warm_iterations", 4]
    run = checkout.train("--dataset.path", folder, *options).run
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 12 + 4 + 4
    background = [np.bincount(labels(run, f"frame_{i}")[:3].ravel()).argmax() for i in range(3)]
    assert len(set(background)) == 1


def test_reference_network_labels_new_images(checkout, tmp_path):
    folder = frames(tmp_path / "frames")
    options = ["--dataset.mode", "reference", "--training.batch_size", 2]
    run = checkout.train("--dataset.path", folder, *options).run
    assert checkout.pred(run).code == 0
    shutil.copy(folder / "frame 1.png", tmp_path / "new.png")
    prediction = checkout.pred(run, "--input", tmp_path / "new.png")
    assert prediction.code == 0, prediction.err
    new = np.load(run / "predictions_new/segments/new/labels.npy")
    assert np.array_equal(new, np.load(run / "segments/frame_1/labels.npy"))


def test_frozen_statistics_for_new_images(checkout, tmp_path):
    folder = frames(tmp_path / "frames", n=1)
    options = ["--dataset.mode", "reference", "--model.frozen_statistics", "true"]
    run = checkout.train("--dataset.path", folder, *options).run
    assert checkout.pred(run, "--input", folder, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out/segments/frame_0/labels.npy").exists()


# ---- options


def test_n_labels_and_min_area(checkout):
    run = checkout.train("--model.n_labels", 3, "--model.min_area", 0.01).run
    assert checkout.score(run)["n_labels"] == 3


def scribble(folder):
    """A mask of two classes for frame 0."""
    mask = np.full((20, 30), 255, np.uint8)
    mask[7:12, 6:12], mask[2, :] = 4, 9
    Image.fromarray(mask).save(folder / "frame 0_scribble.png")
    return folder / "frame 0_scribble.png"


def test_scribbled_pixels_get_their_class(checkout, tmp_path):
    folder = frames(tmp_path / "frames", n=1)
    options = ["--dataset.path", folder, "--dataset.scribbles", scribble(folder)]
    run = checkout.train(*options, "--training.n_iterations", 40).run
    segments = labels(run, "frame_0")
    assert (segments[7:12, 6:12] == 0).all() and (segments[2] == 1).mean() > 0.9
