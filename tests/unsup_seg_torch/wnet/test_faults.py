"""Bad input, hard images, damaged files: one line each, and nothing is lost."""

import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.entry_scripts import PickleBomb, change_config, one_line
from tests.every_paper import NO_CONFIG, Configs, Damaged, Environment, Folders, Predictions
from unsup_seg_torch.wnet.config import Config

BSDS = ("--dataset.name", "bsds500", "--dataset.path", "null", "--dataset.split", "val")


class TestEnvironment(Environment):
    pass


class TestConfigs(Configs):
    config = Config

    @pytest.fixture(
        params=[
            *NO_CONFIG,
            ("model: {n_cluster: 3}", "no key model.n_cluster; did you mean model.n_clusters"),
            ("model: {width: many}", "model.width: expected int"),
            ("model: {name: unet}", "model.name: expected one of wnet"),
            ("model: {n_clusters: 0}", "model.n_clusters is 0: expected 2 or more"),
            ("model: {n_clusters: 1}", "model.n_clusters is 1: expected 2 or more"),
            ("model: {depth: 9}", "model.depth is 9: expected 8 or less"),
            ("model: {dropout: 1}", "model.dropout is 1.0: expected 0 or more, below 1"),
            ("model: {radius: 0}", "model.radius is 0.0: expected a number above 0"),
            ("model: {sigma_intensity: -1}", "model.sigma_intensity is -1.0: expected a number"),
            ("model: {crf_iterations: -1}", "model.crf_iterations is -1: expected 0 or more"),
            ("model: {height: -1}", "model.height is -1.0: expected 0 or more"),
            ("dataset: {crop: 0}", "dataset.crop is 0: expected 1 or more"),
            ("dataset: {max_bad: 2}", "dataset.max_bad is 2.0: expected a fraction"),
            ("training: {lr: .nan}", "training.lr: expected a finite number"),
            ("training: {lr: -1e-3}", "training.lr is -0.001: expected a number above 0"),
            ("training: {batch_size: 0}", "training.batch_size is 0: expected 1 or more"),
            ("training: {mode: both}", "training.mode: expected one of alternating, joint"),
            ("training: {drop_every: 0}", "training.drop_every is 0: expected 1 or more"),
        ]
    )
    def bad_config(self, request):
        return request.param


class TestFolders(Folders):
    of_one_size = ()

    def of(self, folder):
        return "--dataset.path", folder, "--training.n_epochs", 1


class TestPredictions(Predictions):
    predictions = "predictions.csv"


class TestDamaged(Damaged):
    weights, state = "model.safetensors", "state.safetensors"

    @pytest.fixture(params=[("n_clusters: 4", "n_clusters: 5", "(4, ")])
    def change(self, request):
        return request.param


# ---- input


def test_unreadable_image_and_unknown_dataset_are_refused(refused, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    assert "text.png: not an image" in refused("--dataset.path", tmp_path / "text.png")
    reason = refused("--dataset.path", "null", "--dataset.name", "fotos")
    assert "dataset.name fotos is not known: expected one of photographs, bsds500" in reason


def test_weights_of_another_model_are_refused(checkout, finished_run, tmp_path, refused):
    weights = next(finished_run[1].glob("checkpoints/*/model.safetensors"))
    reason = refused("--model.weights", weights, "--model.width", 6)
    assert "is of another model: decoder.down.0.0.depthwise.weight is (4, 1, 3, 3)" in reason
    (tmp_path / "text.safetensors").write_text("no weights")
    reason = refused("--model.weights", tmp_path / "text.safetensors")
    assert "is not a readable checkpoint" in reason


def test_command_line_overrides_a_config_with_byte_order_mark(checkout, tmp_path):
    text = (
        "\ufefftraining:\r\n  lr: 1e-3\r\n  n_epochs: 9\r\n  crops: 1\r\ndataset: {n_images: 1}\r\n"
    )
    text += "model: {width: 2, depth: 1}\r\n"
    (tmp_path / "windows.yml").write_bytes(text.encode())
    options = ["--config", tmp_path / "windows.yml", "--training.n_epochs", 1]
    answer = checkout("unsup_seg_torch/train.py", *options)
    assert answer.code == 0, answer.err
    text = (answer.run / "config.yml").read_text()
    assert "n_epochs: 1\n" in text and "lr: 0.001\n" in text and "crops: 1\n" in text


def test_decompression_bomb_is_refused(refused, tmp_path):
    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)  # 10 GB once decoded
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    (tmp_path / "bomb.png").write_bytes(start + chunk(b"IDAT", zlib.compress(bytes(1000))))
    reason = refused("--dataset.path", tmp_path / "bomb.png")
    assert "bomb.png" in reason and "million pixels" in reason


def test_single_image_is_trained_on_and_segmented(checkout, photos):
    answer = checkout.train("--dataset.path", photos / "temple.png", "--training.n_epochs", 1)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == 1
    # figures of a single image have no folder of their own
    assert (answer.run / "images/overlay.png").exists()


def test_images_of_one_color_have_finite_scores(checkout, annotated, tmp_path):
    root = shutil.copytree(annotated, tmp_path / "gray")
    for path in (root / "BSDS500/data/images/val").iterdir():
        with Image.open(path) as image:
            Image.new("RGB", image.size, (90, 90, 90)).save(path)
    answer = checkout.train(*BSDS, "--dataset.root", root, "--training.n_epochs", 1)
    assert answer.code == 0, answer.err
    scores = checkout.score(answer.run)  # NaN is not valid JSON
    # one region overlaps each of the two halves by half
    assert scores["covering_ods"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("batch_size", [11, 50])  # the last batch has one crop; one small batch
def test_batch_size_need_not_divide_the_crops(checkout, batch_size):
    answer = checkout.train("--training.batch_size", batch_size, "--training.n_epochs", 1)
    assert answer.code == 0, answer.err


# ---- divergence


def test_divergence_is_refused_with_its_step(checkout):
    answer = checkout.train("--training.lr", 1e30, "--training.optimizer", "sgd")
    assert "became" in one_line(answer) and "at step" in answer.err


def test_divergence_keeps_the_last_good_checkpoint(checkout):
    run = checkout.train(kill_at="6:SIGTERM").run
    before = sorted(path.name for path in run.glob("checkpoints/*"))
    change_config(run, "lr: 0.01", "lr: 1.0e+30")
    answer = checkout.resume(run)
    assert "became" in one_line(answer) and "at step" in answer.err
    assert sorted(path.name for path in run.glob("checkpoints/*")) == before != []
    assert checkout.pred(run).code == 0


# ---- scores


@pytest.fixture
def predicted(checkout, annotated, tmp_path):
    """A predicted run and its data root, both free to damage."""
    root = shutil.copytree(annotated, tmp_path / "root")
    run = checkout.train(*BSDS, "--dataset.root", root, "--training.n_epochs", 1).run
    assert checkout.pred(run).code == 0
    return run, root


def test_damaged_segments_and_ground_truth_are_refused(checkout, predicted, tmp_path):
    run, root = predicted
    scales, truth = run / "scales/temple.npy", root / "BSDS500/data/groundTruth/val/temple.mat"
    content = scales.read_bytes()
    os.truncate(scales, 150)
    assert "temple.npy" in one_line(checkout.evaluate(run))
    np.save(scales, np.zeros((2, 3, 3), np.uint16))
    assert "temple.npy" in one_line(checkout.evaluate(run))
    bomb = PickleBomb(tmp_path / "harm")
    np.save(scales, np.array([bomb], dtype=object))
    assert "temple.npy" in one_line(checkout.evaluate(run)) and not bomb.path.exists()
    scales.write_bytes(content)
    savemat(truth, {"other": 1})
    assert "temple.mat" in one_line(checkout.evaluate(run))
    truth.unlink()
    reason = one_line(checkout.evaluate(run))
    assert "lacks" in reason and "temple.mat" in reason
