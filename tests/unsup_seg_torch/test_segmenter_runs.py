"""Whole runs of Segmenter: what they leave behind, how they go on, that they are exact; faults."""

import csv
import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from common import images, metrics
from tests.entry_scripts import assert_the_same, change_config, copy_of, one_line
from tests.every_paper import Damaged, Interrupted
from tests.unsup_seg_torch import transformers
from unsup_seg_torch import encoders

PICTURES = "overview legend prior"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return transformers.write_scenes(tmp_path_factory.mktemp("labelled pictures"))


checkout, cold, finished_run, stopped = transformers.fixtures(transformers.SEGMENTER, "scenes")


class TestInterrupted(Interrupted):
    weights = "model.safetensors"
    # twelve steps: in the first and second epoch, and after the last batch of one
    stops = ((3, "SIGTERM"), (6, "SIGINT"), (8, "SIGTERM"))
    first, more = 3, 3


class TestDamaged(Damaged):
    weights, state = "model.safetensors", "state.safetensors"
    option = ("--model.width", 32)

    @pytest.fixture(params=[("width: 32", "width: 64", "32")])
    def change(self, request):
        return request.param


def rows_of(run):
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_labels_overlays_areas_and_scores_agree(finished_run, scenes):
    answer, run = finished_run
    assert answer.out == f"{run}\n"
    counts = np.zeros((3, 3), int)
    areas = json.loads((run / "areas.json").read_text())
    assert [row["name"] for row in rows_of(run)] == ["100", "101", "102"]
    for row in rows_of(run):
        picture = Image.open(run / "labels" / f"{row['name']}.png")
        labels, truth = (
            np.asarray(picture),
            np.asarray(Image.open(scenes / f"val/{row['name']}.png")),
        )
        assert picture.mode == "P" and labels.shape == truth.shape
        counts += metrics.confusion(truth, labels, 3, 255)
        share = areas[row["name"]][row["largest_class"]]
        assert share == pytest.approx(float(row["largest_share"]), abs=1e-6)
        assert images.load(run / f"overlays/{row['name']}.png").shape[0] >= 26
    scores = json.loads((run / "scores.json").read_text())
    expected = metrics.confusion_scores(counts)
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "weighted_iou"):
        assert scores[name] == pytest.approx(expected[name])
    assert set(scores["iou"]) <= {"sky", "ground", "box"} and scores["n"] == 3
    assert 0 < scores["baseline"]["pixel_accuracy"] < 1
    assert all((run / f"images/{name}.png").exists() for name in PICTURES.split())
    report = checkout_report(run)
    assert "Legend" in report and "most frequent class" in report


def checkout_report(run):
    from common import report

    return report.write_report(run).read_text()


def test_the_same_seed_twice_gives_the_same_weights(checkout, finished_run):
    assert_the_same(checkout.train().run, finished_run[1])


def test_new_pictures_and_what_the_transformer_sees_in_them(
    checkout, finished_run, scenes, tmp_path
):
    _, run = finished_run
    frames = [Image.open(scenes / f"val/{i}.jpg").resize((40, 30)) for i in (100, 101, 102)]
    frames[0].save(tmp_path / "movie.gif", save_all=True, append_images=frames[1:])
    options = ("--attention", "--segments", 3, "--out", tmp_path / "new")
    answer = checkout.pred(run, "--input", tmp_path / "movie.gif", *options)
    assert answer.code == 0, answer.err
    new = tmp_path / "new"
    assert [row["name"] for row in rows_of(new)] == ["00000", "00001", "00002"]
    assert not (new / "confusion.npz").exists()
    with np.load(new / "attention/00001/attention.npz") as file:
        assert file["maps"].shape == (2, 4, 5)  # two heads, patches of 8 in 30x40
    with Image.open(new / "images/attention.gif") as animation:
        assert animation.n_frames == 3
    assert np.load(new / "scales/00002.npy").shape == (2, 30, 40)
    for name in ("mean", "heads", "mask", "colours"):
        assert (new / f"attention/00000/{name}.png").exists()
    assert (new / "images/segments.png").exists() and (new / "objects/00000.png").exists()


def test_the_overview_shows_pictures_from_first_to_last(checkout, finished_run, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(14):
        Image.new("RGB", (40, 30), (10 * i, 10 * i, 10 * i)).save(folder / f"{i:02d}.png")
    answer = checkout.pred(finished_run[1], "--input", folder, "--out", tmp_path / "new")
    assert answer.code == 0, answer.err
    with Image.open(tmp_path / "new/images/overview.png") as sheet:
        left = np.asarray(sheet)[15::34, 20, 0]
    assert left.tolist() == [0, 20, 40, 60, 80, 100, 120]


def test_the_command_of_the_original_repository_works_in_the_folder(cold, tmp_path):
    """Its --pretrained takes ViT-Ti of timm, here from a cache that holds some weights of it."""
    encoder = encoders.build("vit_tiny_patch16_384", (384, 384))
    transformers.cache(tmp_path, "timm/vit_tiny_patch16_384.augreg_in21k_ft_in1k", encoder.net)
    words = "--model=segmenter --batch-size=16 --epochs=1 --learning-rate=0.001 --pretrained"
    options = [*words.split(), "--save-model", "--save-logs", "--dataset.n_images", 16]
    options += ["--dataset.crop", "[32, 32]"]
    answer = cold("train", *options, cwd="unsup_seg_torch", HF_HUB_CACHE=str(tmp_path))
    assert answer.code == 0, answer.err
    assert re.search(r"weights of vit_tiny_patch16_384: (\d+) of \1 loaded from", answer.err)
    assert "position embeddings resized to 2x2" in answer.err
    run = answer.run
    assert (run / "images/losses.png").exists() and (run / "model.safetensors").exists()


def test_pretrained_without_a_network_is_one_line(cold, tmp_path):
    before = cold.runs()
    offline = {"HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    answer = cold.train("--model.pretrained", "true", **offline)
    assert "are not in the cache" in one_line(answer) and cold.runs() == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--model.n_head", 2), "no option --model.n_head; did you mean --model.n_heads"),
        (("--model.n_clusters", 2), "no option --model.n_clusters"),
        (("--model.n_heads", 5), "model.width is 32, which 5 heads do not divide"),
        (("--model.decoder", "unet"), "model.decoder: expected one of mask, linear"),
        (("--model.scales", "[0]"), "model.scales is [0.0]: expected numbers above 0"),
        (("--model.backbone", "resnet18"), "no plain vision transformer of timm"),
        (("--dataset.crop", "[0, 4]"), "dataset.crop is [0, 4]: expected [height, width]"),
        (("--dataset.split", "test"), "test holds no pair of a picture and its labels"),
        (("--training.scale", "[2, 1]"), "training.scale is [2.0, 1.0]"),
        (("--training.lr", ".nan"), "training.lr: expected a finite number"),
        (("--training.single_class", 0), "training.single_class is 0.0"),
        (("--training.average", 1), "training.average is 1.0"),
    ],
)
def test_a_wrong_config_is_refused_with_the_key(refused, options, reason):
    assert reason in refused(*options)


def test_weights_of_another_transformer_are_refused(refused, tmp_path):
    other = encoders.build(None, (24, 32), patch_size=8, width=32, depth=3, n_heads=2)
    save_file(other.net.state_dict(), tmp_path / "a.safetensors", other.describe())
    assert "has 3 blocks" in refused("--model.weights", tmp_path / "a.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    assert "text.pth holds more than tensors" in refused("--model.weights", tmp_path / "text.pth")


def test_bad_pictures_and_labels_are_skipped_named_and_counted(checkout, refused, tmp_path):
    folder = transformers.write_scenes(tmp_path / "some", n=4)
    os.truncate(folder / "train/0.jpg", 300)
    Image.new("RGB", (4, 4)).save(folder / "train/1.png")  # colours, not labels
    options = ["--dataset.path", folder, "--training.n_epochs", 1]
    assert "2 of 4 images cannot be read, more than dataset.max_bad" in refused(*options)
    answer = checkout.train(*options, "--dataset.max_bad", 0.5)
    assert answer.code == 0 and "0.jpg" in answer.err and "mode RGB" in answer.err
    assert checkout.score(answer.run)["n"] == 3


def test_all_modes_sizes_and_names_are_segmented(checkout, finished_run, tmp_path):
    folder = tmp_path / "all kinds"
    folder.mkdir()
    Image.new("L", (5, 9), 80).save(folder / "gray.png")
    Image.new("RGBA", (7, 7), (9, 80, 30, 5)).save(folder / "with\nbreak.png")
    Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    Image.new("RGB", (70, 1)).save(folder / "lïne.png")
    Image.new("CMYK", (90, 50), (9, 80, 30, 5)).save(folder / "cmyk.jpg")
    options = ("--attention", "--segments", 3, "--out", tmp_path / "new")
    answer = checkout.pred(finished_run[1], "--input", folder, *options)
    assert answer.code == 0, answer.err
    assert len(rows_of(tmp_path / "new")) == 5


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--attention",), "give --input"),
        (("--input", "nowhere.png"), "is absent"),
        (("--input", "nowhere.mp4", "--attention"), "nowhere.mp4 is absent"),
        (("--input", ".", "--segments", 1), "--segments 1: expected 2 to 64"),
        (("--input", ".", "--mass", 0), "--mass 0.0: expected more than 0"),
        (("--input", ".", "--size", 0), "--size 0: expected 1 or more"),
    ],
)
def test_wrong_options_of_pred_are_refused(checkout, finished_run, options, reason):
    assert reason in one_line(checkout.pred(finished_run[1], *options))


def test_a_checkpoint_of_another_network_is_refused_with_the_difference(
    checkout, stopped, tmp_path
):
    run = copy_of(stopped, tmp_path)
    change_config(run, "width: 32", "width: 48")
    for answer in (checkout.resume(run), checkout.pred(run)):
        assert "is of another model: " in one_line(answer)


def test_a_run_that_diverges_is_stopped_with_the_step_named(checkout):
    answer = checkout.train("--training.lr", 1e30, "--training.optimizer", "sgd")
    assert "became" in one_line(answer) and "at step" in answer.err


def test_labels_that_have_changed_end_the_resumption(checkout, tmp_path):
    folder = transformers.write_scenes(tmp_path / "some", n=4)
    run = checkout.train("--dataset.path", folder, kill_at="1:SIGTERM").run
    Image.fromarray(np.zeros((26, 44), np.uint8)).save(folder / "train/0.png")
    assert "not what they were" in one_line(checkout.resume(run))


def test_evaluate_before_pred_and_an_unwritable_output_are_one_line(checkout, stopped, tmp_path):
    run = copy_of(stopped, tmp_path)
    assert "run pred.py on it first" in one_line(checkout.evaluate(run))
    (tmp_path / "file").write_text("")
    answer = checkout.pred(run, "--out", tmp_path / "file" / "below")
    assert "cannot write" in one_line(answer)
