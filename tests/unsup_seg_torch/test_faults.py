"""Bad input, bad data, damage and attack: one line each, and nothing lost."""

import os
import sys

import numpy as np
import pytest
from PIL import Image

from common import UserError, cli
from tests.entry_scripts import change_config, copy_of, one_line
from tests.every_paper import Damaged, Machine
from unsup_seg_torch.config import Config


def write(path, *size, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size or (30, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


class TestMachine(Machine):
    pass


class TestDamaged(Damaged):
    weights, state = "model.safetensors", "state.safetensors"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected sections"),
        ("model: {width: [", "is no YAML"),
        ("model: {width: !!python/object/apply:os.getcwd []}", "is no YAML"),
        ("model: {n_cluster: 3}", "no key model.n_cluster; did you mean model.n_clusters"),
        ("model: {width: many}", "model.width: expected int"),
        ("model: {name: unet}", "model.name: expected one of wnet"),
        ("model: {n_clusters: 0}", "model.n_clusters is 0: expected 1 or more"),
        ("model: {depth: 9}", "model.depth is 9: expected 8 or less"),
        ("model: {dropout: 1}", "model.dropout is 1.0: expected 0 or more, below 1"),
        ("model: {radius: 0}", "model.radius is 0.0: expected more than 0"),
        ("model: {sigma_intensity: -1}", "model.sigma_intensity is -1.0: expected more than 0"),
        ("model: {crf_iterations: -1}", "model.crf_iterations is -1: expected 0 or more"),
        ("model: {height: -1}", "model.height is -1.0: expected 0 or more"),
        ("dataset: {crop: 0}", "dataset.crop is 0: expected 1 or more"),
        ("dataset: {max_bad: 2}", "dataset.max_bad is 2.0: expected a share"),
        ("training: {lr: .nan}", "training.lr: expected a finite number"),
        ("training: {lr: -1e-3}", "training.lr is -0.001: expected a number above 0"),
        ("training: {batch_size: 0}", "training.batch_size is 0: expected 1 or more"),
        ("training: {mode: both}", "training.mode: expected one of alternating, joint"),
        ("training: {drop_every: 0}", "training.drop_every is 0: expected 1 or more"),
    ],
)
def test_a_wrong_config_is_refused_with_the_key(checkout, monkeypatch, tmp_path, text, reason):
    (tmp_path / "mine.yml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", str(tmp_path / "mine.yml")])
    with pytest.raises(UserError) as error:
        cli.start(Config, str(checkout.paper / "train.py"), default="embedded.yml")
    assert reason in str(error.value)


def test_what_is_no_picture_is_refused(refused, tmp_path):
    assert "absent" in refused("--dataset.path", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused("--dataset.path", tmp_path / "empty")
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png: not a picture" in refused("--dataset.path", tmp_path / "text.png")
    reason = refused("--dataset.path", "null", "--dataset.name", "fotos")
    assert "dataset.name fotos is not known: photographs, bsds500" in reason


def test_bad_pictures_are_skipped_named_and_counted(checkout, refused, tmp_path):
    folder = tmp_path / "photos"
    for i in range(4):
        write(folder / f"{i}.png", seed=i)
    os.truncate(write(folder / "cut.jpg", 64, 64), 500)
    (folder / "zero.png").write_bytes(b"")
    options = ["--dataset.path", folder, "--training.n_epochs", 1]
    assert "2 of 6 images cannot be read, more than dataset.max_bad" in refused(*options)
    answer = checkout.train(*options, "--dataset.max_bad", 0.5)
    assert answer.code == 0 and "cut.jpg" in answer.err and "zero.png" in answer.err
    assert checkout.score(answer.run)["n"] == 4


def test_pictures_of_all_modes_sizes_and_names_are_segmented(checkout, tmp_path):
    folder = tmp_path / "all kinds"
    write(folder / "gray.png", 9, 5)
    write(folder / "with\nbreak.png", 7, 7, 4)
    write(folder / "é ü.png", 20, 30, 3)
    write(folder / "tiny.png", 1, 1)
    write(folder / "line.png", 1, 40)
    Image.new("CMYK", (8, 8), (9, 80, 30, 5)).save(folder / "cmyk.jpg")
    Image.new("RGB", (20, 15), (90, 90, 90)).save(folder / "flat.png")
    Image.new("I;16", (8, 8), 40000).save(folder / "deep.png")
    (folder / "circle").symlink_to(folder)
    answer = checkout.train("--dataset.path", folder, "--training.n_epochs", 1)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == 8


def test_a_run_that_diverges_is_stopped_with_the_step_named(checkout):
    answer = checkout.train("--training.lr", 1e30, "--training.optimizer", "sgd")
    assert "became" in one_line(answer) and "at step" in answer.err


def test_weights_that_do_not_fit_are_refused(checkout, whole, tmp_path, refused):
    weights = next(whole[1].glob("checkpoints/*/model.safetensors"))
    reason = refused("--model.weights", weights, "--model.width", 6)
    assert "is of another model: decoder.down.0.0.depthwise.weight is (4, 1, 3, 3)" in reason
    (tmp_path / "text.safetensors").write_text("no weights")
    assert "is no readable checkpoint" in refused("--model.weights", tmp_path / "text.safetensors")


def test_a_checkpoint_of_another_network_is_refused_with_the_difference(
    checkout, stopped, tmp_path
):
    run = copy_of(stopped, tmp_path)
    change_config(run, "n_clusters: 4", "n_clusters: 5")
    for answer in (checkout.resume(run), checkout.pred(run)):
        assert "(4, " in one_line(answer) and "is of another model: " in answer.err


def test_an_output_that_cannot_be_written_is_refused(checkout, whole, tmp_path):
    (tmp_path / "file").write_text("")
    answer = checkout.pred(whole[1], "--out", tmp_path / "file" / "below")
    assert "cannot write" in one_line(answer)


def test_pictures_that_have_changed_end_the_resumption(checkout, tmp_path):
    photo = write(tmp_path / "a.png")
    run = checkout.train("--dataset.path", photo, strike="1:SIGTERM").run
    write(photo, seed=1)
    assert "not what they were" in one_line(checkout.resume(run))
