"""Whole runs of DINO: what they leave behind, how they go on, that they are exact; faults."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

from tests.entry_scripts import assert_the_same, change_config, copy_of, one_line
from tests.every_paper import Damaged, Interrupted
from tests.unsup_seg_torch import transformers
from unsup_seg_torch import encoders


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return transformers.write_photos(tmp_path_factory.mktemp("three colours"))


checkout, cold, finished_run, stopped = transformers.fixtures(transformers.DINO, "photos")


class TestInterrupted(Interrupted):
    weights = "model.safetensors"
    # eighteen steps: in the first and second epoch, and after the last batch of one
    stops = ((3, "SIGTERM"), (8, "SIGINT"), (12, "SIGTERM"))
    first, more = 3, 3


class TestDamaged(Damaged):
    weights, state = "model.safetensors", "state.safetensors"
    option = ("--model.n_outputs", 16)

    @pytest.fixture(params=[("n_outputs: 16", "n_outputs: 17", "(16,")])
    def change(self, request):
        return request.param


def test_features_neighbours_and_scores_are_written(finished_run, photos):
    answer, run = finished_run
    assert answer.out == f"{run}\n"
    with np.load(run / "predictions.npz") as file:
        embeddings, labels = file["embeddings"], file["labels"]
    assert embeddings.shape == (24, 32) and labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(24)
    for row, cosine in zip(rows, cosines, strict=True):
        assert float(row["cosine"]) == pytest.approx(cosine.max(), abs=1e-5)
        assert row["nearest"] != row["path"]
    scores = json.loads((run / "scores.json").read_text())
    assert {"knn_10", "knn_20", "linear", "n"} <= scores.keys()
    for name in ("untrained", "raw_pixels"):
        assert scores[name].keys() == {"knn_10", "knn_20", "linear"}
    assert scores["baseline"]["name"].startswith("pixels") and "every fifth" in scores["protocol"]
    for name in ("neighbours", "attention"):
        assert (run / f"images/{name}.png").exists()
    said = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in said] == [10, 18]
    assert all(0 <= line["entropy"] <= 1 for line in said)


def test_the_same_seed_twice_gives_the_same_weights(checkout, finished_run):
    assert_the_same(checkout.train().run, finished_run[1])


def test_the_command_in_the_manner_of_the_original_works_in_the_folder(checkout):
    words = "--model=dino --batch-size=16 --epochs=1 --learning-rate=0.001 --save-model --save-logs"
    options = [*words.split(), "--dataset.n_images", 40, "--model.stem", "false"]
    answer = checkout("train", *options, cwd="unsup_seg_torch")
    assert answer.code == 0, answer.err
    run = answer.run
    assert run.parent.name == "digits" and (run / "images/losses.png").exists()
    theirs = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=96, depth=4, num_heads=3, num_classes=0
    )
    theirs.load_state_dict(encoders.read(run / "model.safetensors")[0])


def test_given_weights_are_used_without_training(cold, checkout, photos, tmp_path):
    """Public checkpoints become runs: their features are scored, and pred.py looks through them."""
    encoder = encoders.build("test_vit", (64, 64))
    transformers.cache(tmp_path, "timm/test_vit.r160_in1k", encoder.net)
    options = ["--model.backbone", "test_vit", "--model.pretrained", "true"]
    options += ["--training.n_epochs", 0, "--training.large", 32]
    answer = cold.train(*options, HF_HUB_CACHE=str(tmp_path))
    assert answer.code == 0, answer.err
    assert "loaded from" in answer.err
    run = answer.run
    assert checkout.score(run)["n"] == 24
    out = tmp_path / "new"
    given = checkout.pred(run, "--input", photos / "red", "--attention", "--out", out)
    assert given.code == 0, given.err
    with np.load(out / "attention/00/attention.npz") as file:
        assert file["maps"].shape[0] == encoder.n_heads
    with Image.open(out / "images/attention.gif") as animation:
        assert animation.n_frames == 8


def test_new_pictures_have_features_maps_and_segments(checkout, finished_run, photos, tmp_path):
    out = tmp_path / "new"
    options = ("--attention", "--segments", 3, "--out", out, "--max-frames", 2)
    answer = checkout.pred(finished_run[1], "--input", photos / "red", *options)
    assert answer.code == 0, answer.err
    with np.load(out / "predictions.npz") as file:
        assert file["embeddings"].shape == (2, 32)
    assert np.load(out / "scales/00.npy").shape == (2, 20, 20)
    assert (out / "attention/01/colours.png").exists() and (out / "objects/01.png").exists()


def test_images_without_labels_have_nothing_to_score_with(checkout, photos):
    answer = checkout.train("--dataset.path", photos / "red", "--training.n_epochs", 1)
    assert answer.code == 0, answer.err
    scores = checkout.score(answer.run)
    assert scores["n"] == 8 and "no labels" in scores["protocol"] and "linear" not in scores


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--model.n_outputs", 1), "model.n_outputs is 1: expected 2 or more"),
        (
            ("--model.stem", "true", "--model.backbone", "vit_tiny_patch16_224"),
            "model.stem is True: expected false for a backbone of timm",
        ),
        (("--model.n_heads", 5), "model.width is 32, which 5 heads do not divide"),
        (("--training.momentum", 1), "training.momentum is 1.0: expected 0 or more, below 1"),
        (("--training.temperature", 0), "training.temperature is 0.0: expected more than 0"),
        (("--training.large_scale", "[0, 1]"), "training.large_scale is [0.0, 1.0]"),
        (("--training.clip", 0), "training.clip is 0.0: expected more than 0, or null"),
        (("--training.lr", ".inf"), "training.lr: expected a finite number"),
        (("--dataset.path", "nowhere"), "nowhere is absent"),
        (("--model.crf_iterations", 2), "no option --model.crf_iterations"),
    ],
)
def test_a_wrong_config_is_refused_with_the_key(refused, options, reason):
    assert reason in refused(*options)


def test_one_image_is_refused_and_bad_ones_are_skipped(checkout, refused, photos, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    Image.open(photos / "red/00.png").save(folder / "a.png")
    assert "there is only 1 image: DINO needs two" in refused("--dataset.path", folder)
    Image.open(photos / "red/01.png").convert("L").save(folder / "b ü.png")
    (folder / "text.png").write_text("no picture")
    Image.open(photos / "red/02.png").save(folder / "cut.png")
    os.truncate(folder / "cut.png", 60)
    options = ["--dataset.path", folder, "--training.n_epochs", 1]
    assert "2 of 4 images cannot be read" in refused(*options)
    answer = checkout.train(*options, "--dataset.max_bad", 0.5)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == 2


def test_a_checkpoint_of_another_network_is_refused_with_the_difference(
    checkout, stopped, tmp_path
):
    run = copy_of(stopped, tmp_path)
    change_config(run, "n_outputs: 16", "n_outputs: 18")
    for answer in (checkout.resume(run), checkout.pred(run)):
        assert "is of another model: centre is (16,), the config expects (18,)" in one_line(answer)


def test_a_run_that_diverges_is_stopped_with_the_step_named(checkout):
    answer = checkout.train("--training.lr", 1e30, "--training.warmup", 0)
    assert "became" in one_line(answer) and "at step" in answer.err


def test_images_that_have_changed_end_the_resumption(checkout, photos, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for i in range(8):
        Image.open(photos / f"red/{i:02d}.png").save(folder / f"{i}.png")
    run = checkout.train("--dataset.path", folder, kill_at="1:SIGTERM").run
    (folder / "0.png").unlink()
    assert "not what they were" in one_line(checkout.resume(run))
