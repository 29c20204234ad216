"""Bad options, files and checkpoints: one line each."""

import os

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from tests.entry_scripts import change_config, copy_of, one_line
from tests.every_paper import Damaged
from tests.unsup_seg_torch import synthetic
from unsup_seg_torch.vit import encoder


class TestDamaged(Damaged):
    weights, state = "model.safetensors", "state.safetensors"
    option = ("--model.width", 32)

    @pytest.fixture(params=[("width: 32", "width: 64", "32")])
    def change(self, request):
        return request.param


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--model.n_head", 2), "no option --model.n_head; did you mean --model.n_heads"),
        (("--model.n_clusters", 2), "no option --model.n_clusters"),
        (("--model.n_heads", 5), "model.width is 32: expected a multiple of its 5 heads"),
        (("--model.decoder", "unet"), "model.decoder: expected one of mask, linear"),
        (("--model.scales", "[0]"), "model.scales is [0.0]: expected numbers above 0"),
        (("--model.backbone", "resnet18"), "not a plain vision transformer of timm"),
        (("--dataset.crop", "[0, 4]"), "dataset.crop is [0, 4]: expected [height, width]"),
        (("--dataset.split", "test"), "test contains no pair of image and labels"),
        (("--training.scale", "[2, 1]"), "training.scale is [2.0, 1.0]"),
        (("--training.lr", ".nan"), "training.lr: expected a finite number"),
        (("--training.single_class", 0), "training.single_class is 0.0"),
        (("--training.average", 1), "training.average is 1.0"),
    ],
)
def test_wrong_config_is_refused_with_the_key(refused, options, reason):
    assert reason in refused(*options)


def test_weights_of_another_transformer_are_refused(refused, tmp_path):
    other = encoder.build(None, (24, 32), patch_size=8, width=32, depth=3, n_heads=2)
    save_file(other.net.state_dict(), tmp_path / "a.safetensors", other.describe())
    assert "has 3 blocks" in refused("--model.weights", tmp_path / "a.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    assert "text.pth holds more than tensors" in refused("--model.weights", tmp_path / "text.pth")


def test_bad_images_and_labels_are_skipped_named_and_counted(checkout, refused, tmp_path):
    folder = synthetic.write_labeled_images(tmp_path / "some", n=4)
    os.truncate(folder / "train/0.jpg", 300)
    Image.new("RGB", (4, 4)).save(folder / "train/1.png")  # colors, not labels
    options = ["--dataset.path", folder, "--training.n_epochs", 1]
    assert "2 of 4 images cannot be read, more than dataset.max_bad" in refused(*options)
    answer = checkout.train(*options, "--dataset.max_bad", 0.5)
    assert answer.code == 0 and "0.jpg" in answer.err and "mode RGB" in answer.err
    assert checkout.score(answer.run)["n"] == 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--attention",), "pass --input"),
        (("--input", "nowhere.png"), "does not exist"),
        (("--input", "nowhere.mp4", "--attention"), "nowhere.mp4 does not exist"),
        (("--input", ".", "--segments", 1), "--segments is 1: expected 2 to 64"),
        (("--input", ".", "--mass", 0), "--mass is 0.0: expected more than 0"),
        (("--input", ".", "--size", 0), "--size is 0: expected 1 or more"),
    ],
)
def test_wrong_options_of_pred_are_refused(checkout, finished_run, options, reason):
    assert reason in one_line(checkout.pred(finished_run[1], *options))


def test_checkpoint_of_another_model_is_refused(checkout, stopped_run, tmp_path):
    run = copy_of(stopped_run, tmp_path)
    change_config(run, "width: 32", "width: 48")
    for answer in (checkout.resume(run), checkout.pred(run)):
        assert "is of another model: " in one_line(answer)


def test_divergence_is_refused_with_its_step(checkout):
    answer = checkout.train("--training.lr", 1e30, "--training.optimizer", "sgd")
    assert "became" in one_line(answer) and "at step" in answer.err


def test_changed_labels_are_refused_when_resuming(checkout, tmp_path):
    folder = synthetic.write_labeled_images(tmp_path / "some", n=4)
    run = checkout.train("--dataset.path", folder, kill_at="1:SIGTERM").run
    Image.fromarray(np.zeros((26, 44), np.uint8)).save(folder / "train/0.png")
    assert "changed since training" in one_line(checkout.resume(run))


def test_evaluate_before_pred_and_unwritable_output_are_refused(checkout, stopped_run, tmp_path):
    run = copy_of(stopped_run, tmp_path)
    assert "run pred.py on it first" in one_line(checkout.evaluate(run))
    (tmp_path / "file").write_text("")
    answer = checkout.pred(run, "--out", tmp_path / "file" / "below")
    assert "cannot write" in one_line(answer)
