"""Whole runs: their files and scores, exact resumption, new images, pretrained weights."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from common import images, metrics, report
from tests.entry_scripts import assert_the_same, one_line
from tests.every_paper import Interrupted
from tests.unsup_seg_torch import hub_cache
from tests.unsup_seg_torch.segmenter import authors
from unsup_seg_torch.vit import encoder


class TestInterrupted(Interrupted):
    weights = "model.safetensors"
    # in the first and second epoch, and after the last batch of one
    stops = ((3, "SIGTERM"), (6, "SIGINT"), (8, "SIGTERM"))
    first, more = 3, 3


def read_predictions(folder):
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_label_maps_areas_and_scores_agree(finished_run, labeled_images):
    answer, run = finished_run
    assert answer.out == f"{run}\n"
    counts = np.zeros((3, 3), int)
    areas = json.loads((run / "areas.json").read_text())
    rows = read_predictions(run)
    assert [row["name"] for row in rows] == ["100", "101", "102"]
    for row in rows:
        label_map = Image.open(run / f"labels/{row['name']}.png")
        labels = np.asarray(label_map)
        truth = np.asarray(Image.open(labeled_images / f"val/{row['name']}.png"))
        assert label_map.mode == "P" and labels.shape == truth.shape
        counts += metrics.confusion(truth, labels, 3, 255)
        fraction = areas[row["name"]][row["largest_class"]]
        assert fraction == pytest.approx(float(row["largest_share"]), abs=1e-6)
        assert images.load(run / f"overlays/{row['name']}.png").shape[0] >= 26
    scores = json.loads((run / "scores.json").read_text())
    expected = metrics.confusion_scores(counts)
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "weighted_iou"):
        assert scores[name] == pytest.approx(expected[name])
    assert set(scores["iou"]) <= {"sky", "ground", "box"} and scores["n"] == 3
    assert 0 < scores["baseline"]["pixel_accuracy"] < 1


def test_report_shows_legend_and_baseline(finished_run):
    _, run = finished_run
    assert all((run / f"images/{name}.png").exists() for name in ("overview", "legend", "prior"))
    text = report.write_report(run).read_text()
    assert "Legend" in text and "most frequent class" in text


def test_same_seed_gives_the_same_weights(checkout, finished_run):
    assert_the_same(checkout.train().run, finished_run[1])


def test_video_gets_label_maps_attention_and_segments(
    checkout, finished_run, labeled_images, tmp_path
):
    _, run = finished_run
    frames = [Image.open(labeled_images / f"val/{i}.jpg").resize((40, 30)) for i in (100, 101, 102)]
    frames[0].save(tmp_path / "video.gif", save_all=True, append_images=frames[1:])
    out = tmp_path / "new"
    options = ("--attention", "--segments", 3, "--out", out)
    answer = checkout.pred(run, "--input", tmp_path / "video.gif", *options)
    assert answer.code == 0, answer.err
    assert [row["name"] for row in read_predictions(out)] == ["00000", "00001", "00002"]
    assert not (out / "confusion.npz").exists()
    with np.load(out / "attention/00001/attention.npz") as file:
        assert file["maps"].shape == (2, 4, 5)  # two heads, patches of 8 in 30x40
    with Image.open(out / "images/attention.gif") as animation:
        assert animation.n_frames == 3
    assert np.load(out / "scales/00002.npy").shape == (2, 30, 40)
    for name in ("mean", "heads", "mask", "colors"):
        assert (out / f"attention/00000/{name}.png").exists()
    assert (out / "images/segments.png").exists() and (out / "objects/00000.png").exists()


def test_overview_shows_images_from_first_to_last(checkout, finished_run, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(14):
        Image.new("RGB", (40, 30), (10 * i, 10 * i, 10 * i)).save(folder / f"{i:02d}.png")
    answer = checkout.pred(finished_run[1], "--input", folder, "--out", tmp_path / "new")
    assert answer.code == 0, answer.err
    with Image.open(tmp_path / "new/images/overview.png") as sheet:
        left = np.asarray(sheet)[15::34, 20, 0]
    assert left.tolist() == [0, 20, 40, 60, 80, 100, 120]


def test_images_of_all_modes_sizes_and_names_are_segmented(checkout, finished_run, tmp_path):
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
    assert len(read_predictions(tmp_path / "new")) == 5


def test_original_command_runs_in_the_folder(checkout_without_timm, tmp_path):
    """Its --pretrained loads timm's ViT-Ti, here random weights in a cache."""
    net = encoder.build("vit_tiny_patch16_384", (384, 384)).net
    hub_cache.write(tmp_path, "timm/vit_tiny_patch16_384.augreg_in21k_ft_in1k", net)
    words = "--model=segmenter --batch-size=16 --epochs=1 --learning-rate=0.001 --pretrained"
    options = [*words.split(), "--save-model", "--save-logs", "--dataset.n_images", 16]
    options += ["--dataset.crop", "[32, 32]"]
    cache = {"HF_HUB_CACHE": str(tmp_path)}
    answer = checkout_without_timm("train", *options, cwd="unsup_seg_torch", **cache)
    assert answer.code == 0, answer.err
    assert re.search(r"weights of vit_tiny_patch16_384: all \d+ loaded from", answer.err)
    assert "position embeddings resized to 2x2" in answer.err
    run = answer.run
    assert (run / "images/losses.png").exists() and (run / "model.safetensors").exists()


def test_checkpoint_of_the_authors_segments_images_without_training(
    checkout, labeled_images, tmp_path
):
    path, tensors = authors.write(tmp_path / "theirs", n_classes=3, size=(24, 32))
    options = [word for key, value in authors.SIZES.items() for word in (f"--model.{key}", value)]
    options += ["--training.n_epochs", 0, "--training.precision", "float32"]
    answer = checkout.train(*options, "--model.weights", path)
    assert answer.code == 0, answer.err
    assert "the decoder of 3 classes loaded too" in answer.err
    run, image = answer.run, labeled_images / "val/100.jpg"
    answer = checkout.pred(run, "--input", image, "--out", tmp_path / "new")
    assert answer.code == 0, answer.err
    # at 24x32 the image is one window
    small = Image.open(image).resize((32, 24))
    small.save(tmp_path / "small.png")
    answer = checkout.pred(run, "--input", tmp_path / "small.png", "--out", tmp_path / "small")
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
    coarse = torch.from_numpy(authors.coarse(tensors, pixels))
    expected = F.interpolate(coarse[None], (24, 32), mode="bilinear")[0].argmax(0).numpy()
    labels = np.asarray(Image.open(tmp_path / "small/labels/small.png"))
    assert (labels == expected).mean() > 0.99 and len(np.unique(expected)) > 1
    scores = checkout.score(run)
    assert scores["n"] == 3 and "baseline" not in scores and 0 <= scores["miou"] <= 1
    assert set(scores["iou"]) <= {"sky", "ground", "box"}


def test_run_without_training_needs_weights_with_a_decoder(refused, tmp_path):
    options = ("--training.n_epochs", 0)
    assert "training.n_epochs is 0: set model.weights" in refused(*options)
    net = encoder.build(None, (24, 32), patch_size=8, width=32, depth=2, n_heads=2)
    save_file(net.net.state_dict(), tmp_path / "a.safetensors", net.describe())
    reason = refused(*options, "--model.weights", tmp_path / "a.safetensors")
    assert "a.safetensors has no decoder: expected weights of a whole Segmenter" in reason


def test_pretrained_without_a_network_is_refused(checkout_without_timm, tmp_path):
    before = checkout_without_timm.runs()
    offline = {"HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    answer = checkout_without_timm.train("--model.pretrained", "true", **offline)
    assert "are not in the cache" in one_line(answer)
    assert checkout_without_timm.runs() == before
