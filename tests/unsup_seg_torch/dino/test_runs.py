"""Whole runs: features and their scores, exact resumption, new images, pretrained weights."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

from tests.entry_scripts import assert_the_same
from tests.every_paper import Interrupted
from tests.unsup_seg_torch import hub_cache
from unsup_seg_torch.vit import encoder
from unsup_seg_torch.vit import weights as vit_weights


class TestInterrupted(Interrupted):
    weights = "model.safetensors"
    # in the first and second epoch, and after the last batch of one
    stops = ((3, "SIGTERM"), (8, "SIGINT"), (12, "SIGTERM"))
    first, more = 3, 3


def test_features_neighbors_and_scores_are_written(finished_run):
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
    assert scores["baseline"]["name"] == "centered pixels"
    assert "every fifth" in scores["protocol"]
    for name in ("neighbors", "attention"):
        assert (run / f"images/{name}.png").exists()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 18]
    assert all(0 <= line["entropy"] <= 1 for line in lines)


def test_same_seed_gives_the_same_weights(checkout, finished_run):
    assert_the_same(checkout.train().run, finished_run[1])


def test_short_options_run_in_the_folder(checkout):
    words = "--model=dino --batch-size=16 --epochs=1 --learning-rate=0.001 --save-model --save-logs"
    options = [*words.split(), "--dataset.n_images", 40, "--model.stem", "false"]
    answer = checkout("train", *options, cwd="unsup_seg_torch")
    assert answer.code == 0, answer.err
    run = answer.run
    assert run.parent.name == "digits" and (run / "images/losses.png").exists()
    timm_net = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=96, depth=4, num_heads=3, num_classes=0
    )
    timm_net.load_state_dict(vit_weights.read(run / "model.safetensors")[0])


def test_pretrained_weights_are_evaluated_without_training(
    checkout_without_timm, checkout, photos, tmp_path
):
    net = encoder.build("test_vit", (64, 64))
    hub_cache.write(tmp_path, "timm/test_vit.r160_in1k", net.net)
    options = ["--model.backbone", "test_vit", "--model.pretrained", "true"]
    options += ["--training.n_epochs", 0, "--training.large", 32]
    answer = checkout_without_timm.train(*options, HF_HUB_CACHE=str(tmp_path))
    assert answer.code == 0, answer.err
    assert "loaded from" in answer.err
    run = answer.run
    assert checkout.score(run)["n"] == 24
    out = tmp_path / "new"
    answer = checkout.pred(run, "--input", photos / "red", "--attention", "--out", out)
    assert answer.code == 0, answer.err
    with np.load(out / "attention/00/attention.npz") as file:
        assert file["maps"].shape[0] == net.n_heads
    with Image.open(out / "images/attention.gif") as animation:
        assert animation.n_frames == 8


def test_new_images_get_features_attention_and_segments(checkout, finished_run, photos, tmp_path):
    out = tmp_path / "new"
    options = ("--attention", "--segments", 3, "--out", out, "--max-frames", 2)
    answer = checkout.pred(finished_run[1], "--input", photos / "red", *options)
    assert answer.code == 0, answer.err
    with np.load(out / "predictions.npz") as file:
        assert file["embeddings"].shape == (2, 32)
    assert np.load(out / "scales/00.npy").shape == (2, 20, 20)
    assert (out / "attention/01/colors.png").exists() and (out / "objects/01.png").exists()


def test_unlabeled_images_have_no_scores(checkout, photos):
    answer = checkout.train("--dataset.path", photos / "red", "--training.n_epochs", 1)
    assert answer.code == 0, answer.err
    scores = checkout.score(answer.run)
    assert scores["n"] == 8 and "no labels" in scores["protocol"] and "linear" not in scores
