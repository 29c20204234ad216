"""Bad input, bad data, damage and attack: one line each, and nothing lost."""

import json
import os
import shutil
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from clusterloss_tf.config import Config
from common import UserError, cli
from tests.clusterloss_tf.conftest import write_photos
from tests.entry_scripts import Harm, change_config, copy_of, one_line, replace
from tests.every_paper import Damaged, Machine


def write(path, *size, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size or (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    return write_photos(tmp_path / "my photos", n=6, classes=("a", "b", "c"))


def of(folder):
    return ["--dataset.path", folder, "--training.n_epochs", 1]


class TestMachine(Machine):
    pass


class TestDamaged(Damaged):
    pass


# ---- configuration


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected sections"),
        ("- a\n- b", "expected sections"),
        ("model: {depth: [", "is no YAML"),
        ("model: {depth: !!python/object/apply:os.getcwd []}", "is no YAML"),
        ("model: {depths: 3}", "no key model.depths; did you mean model.depth"),
        ("model: {depth: deep}", "model.depth: expected int"),
        ("model: {depth: 12}", "model.depth is 12: expected 4 and a multiple of 3"),
        ("model: {depth: 13, bottleneck: true}", "expected 4 and a multiple of 6"),
        ("model: {growth: 0}", "model.growth is 0: expected 1 or more"),
        ("model: {dim: 0}", "model.dim is 0: expected 1 or more"),
        ("model: {dropout: 1}", "model.dropout is 1.0: expected 0 or more, below 1"),
        ("model: {n_clusters: 0}", "model.n_clusters is 0: expected 1 or more"),
        ("model: {n_clusters: -2}", "model.n_clusters is -2: expected 1 or more"),
        ("dataset: {held_out: 1}", "dataset.held_out is 1.0: expected between 0 and 1"),
        ("dataset: {protocol: open}", "dataset.protocol: expected one of seen, disjoint"),
        ("dataset: {size: 0}", "dataset.size is 0: expected 1 or more"),
        ("training: {loss: best}", "training.loss: expected one of facility"),
        ("training: {refine: none}", "training.refine: expected one of greedy, pam, swap"),
        ("training: {gamma: -1}", "training.gamma is -1.0: expected 0 or more"),
        ("training: {lr: .nan}", "training.lr: expected a finite number"),
        ("training: {lr: .inf}", "training.lr: expected a finite number"),
        ("training: {lr: -1e-3}", "training.lr is -0.001: expected a number above 0"),
        ("training: {warmup: 1}", "training.warmup is 1.0: expected a share below 1"),
        ("training: {milestones: [2]}", "training.milestones is (2.0,): expected shares"),
        ("training: {batch_size: 1}", "training.batch_size is 1: expected 2 or more"),
        ("training: {images_per_class: 1}", "training.images_per_class is 1: expected 2 or"),
        ("training: {n_epochs: -1}", "training.n_epochs is -1: expected 0 or more"),
    ],
)
def test_a_wrong_config_is_refused_with_the_key(checkout, monkeypatch, tmp_path, text, reason):
    (tmp_path / "mine.yml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", str(tmp_path / "mine.yml")])
    before = checkout.runs()
    with pytest.raises(UserError) as error:
        cli.start(Config, str(checkout.paper / "train.py"))
    assert reason in str(error.value) and checkout.runs() == before


def test_an_absent_config_is_one_line_that_names_those_there_are(checkout):
    assert "digits.yml" in one_line(checkout("clusterloss_tf/train.py", "--config", "digit.yml"))


def test_the_command_line_wins_over_a_file_with_byte_order_mark_and_exponent(
    checkout, photos, tmp_path
):
    text = "\ufefftraining:\r\n  lr: 1e-3\r\n  n_epochs: 9\r\n  batch_size: 12\r\n"
    text += f"dataset: {{name: folder, path: {photos}}}\r\nmodel: {{depth: 7, growth: 4}}\r\n"
    (tmp_path / "windows.yml").write_bytes(text.encode())
    options = ["--config", tmp_path / "windows.yml", "--training.n_epochs", 1]
    answer = checkout("clusterloss_tf/train.py", *options)
    assert answer.code == 0 and "epoch 1 of 1" in answer.err, answer.err


def test_more_clusters_than_test_images_are_refused(refused):
    reason = "model.n_clusters is 26, but there are only 25 test images"
    assert reason in refused("--model.n_clusters", 26)


def test_super_classes_where_there_are_none_are_refused(refused):
    assert "is for cifar100, folder has none" in refused("--training.sampler", "superclasses")


# ---- images


def test_folders_without_images_classes_or_pairs_are_refused(refused, tmp_path):
    assert "absent" in refused(*of(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(*of(tmp_path / "empty"))
    write(tmp_path / "one/a.png")
    assert "has no labels: expected two sub-folders or more" in refused(*of(tmp_path / "one"))
    write(tmp_path / "single/a/0.png")
    write(tmp_path / "single/b/0.png")
    assert "too few to hold two for the test" in refused(*of(tmp_path / "single"))
    reason = "needs two classes to train on and two to test on"
    assert reason in refused(*of(tmp_path / "single"), "--dataset.protocol", "disjoint")


@pytest.fixture
def damaged(folder):
    """Eighteen good images and three bad ones."""
    os.truncate(write(folder / "a/cut.jpg", 64, 64, 3), 500)
    (folder / "b/text.png").write_text("no picture")
    (folder / "c/zero.png").write_bytes(b"")
    return folder


def test_bad_images_are_skipped_named_and_counted(checkout, damaged):
    answer = checkout.train(*of(damaged), "--dataset.max_bad", 0.4)
    assert answer.code == 0, answer.err
    log = (answer.run / "train.log").read_text()
    for name in ("cut.jpg", "text.png", "zero.png"):
        assert f"{name}': " in answer.err and name in log
    assert "3 of 21 images cannot be read" in log


def test_too_many_bad_images_are_refused(refused, damaged):
    assert "3 of 21 images cannot be read, more than dataset.max_bad 0.01" in refused(*of(damaged))


def test_images_of_all_modes_sizes_and_names_train_together(checkout, folder):
    write(folder / "a/gray.png", 9, 5)
    write(folder / "a/with\nbreak.png", 7, 7, 4)
    write(folder / "é ü/é ü.png", 20, 30, 3)
    write(folder / "é ü/tiny.png", 1, 1)
    write(folder / "b/line.png", 1, 40)
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    write(folder / "b/turned.jpg", 12, 6, exif=turned)
    Image.new("CMYK", (8, 8), (9, 80, 30, 5)).save(folder / "c/cmyk.jpg")
    Image.new("P", (8, 8), 3).save(folder / "c/palette.png")
    Image.new("I;16", (8, 8), 40000).save(folder / "c/deep.png")
    (folder / "circle").symlink_to(folder)
    answer = checkout.train(*of(folder), "--dataset.size", 8)
    assert answer.code == 0, answer.err
    assert np.isfinite(checkout.score(answer.run)["recall_at_1"])


@pytest.mark.parametrize("loss", ["facility", "triplet", "proxy_anchor"])
def test_equal_images_end_in_finite_scores(checkout, tmp_path, loss):
    for name in "ab":
        for i in range(6):
            write(tmp_path / f"same/{name}/{i}.png")
    answer = checkout.train(*of(tmp_path / "same"), "--training.loss", loss)
    assert answer.code == 0, answer.err
    found = checkout.score(answer.run)
    assert all(np.isfinite(value) for value in found.values() if isinstance(value, float))


@pytest.mark.parametrize("batch_size", [2, 7, 500])  # one class; no multiple; more than there are
def test_batches_need_not_divide_the_images(checkout, batch_size):
    options = ["--training.batch_size", batch_size, "--training.n_epochs", 1]
    answer = checkout.train(*options, "--training.images_per_class", 2)
    assert answer.code == 0, answer.err
    assert ("there is nothing to compare" in answer.err) == (batch_size == 2)


# ---- the run


def test_a_nan_loss_stops_with_the_step_named(checkout):
    answer = checkout.train("--training.lr", 1e38, "--model.normalize", "false")
    assert "the loss became" in one_line(answer) and " at step " in answer.err
    assert "epoch 3" not in answer.err
    if answer.run.exists():
        assert json.loads((answer.run / "meta.json").read_text())["status"] == "failed"


def test_a_run_that_diverges_keeps_the_last_good_checkpoint(checkout):
    run = checkout.train("--model.normalize", "false", strike="3:SIGTERM").run
    change_config(run, "lr: 0.001", "lr: 1.0e+38")
    assert "became NaN or infinite" in one_line(checkout.resume(run))
    assert [path.name for path in run.glob("checkpoints/*")] == ["000000003"]
    assert checkout.pred(run).code == 0


@pytest.mark.parametrize("script", ["pred", "extract"])
def test_an_output_that_cannot_be_written_is_refused(checkout, whole, tmp_path, script):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "below"
    assert "cannot write" in one_line(checkout(f"clusterloss_tf.{script}", whole[1], "--out", out))


def test_new_images_and_features_that_are_absent_are_one_line(checkout, whole, tmp_path):
    _, run = whole
    assert "nowhere is absent" in one_line(checkout.pred(run, "--input", tmp_path / "nowhere"))
    assert not list(run.glob("predictions_nowhere"))
    answer = checkout("clusterloss_tf/evaluate.py", run, "--gallery", tmp_path / "nowhere")
    assert "has no readable features" in one_line(answer)
    assert "--limit is 1: expected 2 or more" in one_line(
        checkout("clusterloss_tf.tsne", run, "--limit", 1)
    )


def test_a_trunk_that_does_not_fit_is_refused_with_the_difference(refused, whole, tmp_path):
    _, run = whole
    assert "is no run folder" in refused("--model.trunk", tmp_path)
    reason = refused("--model.trunk", run, "--model.growth", 5)
    assert "is of another model: " in reason and "the config expects" in reason


# ---- damaged and foreign run folders


def test_evaluate_before_pred_is_one_line(checkout, whole, tmp_path):
    run = copy_of(whole[1], tmp_path)
    scores = (run / "scores.json").read_bytes()
    for damage in (lambda path: os.truncate(path, 1000), os.unlink):
        damage(run / "predictions.npz")
        reason = "no readable predictions.npz: run pred.py on it first"
        assert reason in one_line(checkout.evaluate(run))
    assert (run / "scores.json").read_bytes() == scores


def test_nan_in_embeddings_is_refused(checkout, whole, tmp_path):
    run = copy_of(whole[1], tmp_path)
    with np.load(run / "predictions.npz") as file:
        arrays = dict(file)
    arrays["embeddings"][3, 1] = np.nan
    np.savez(run / "predictions.npz", **arrays)
    assert "embeddings have a NaN or an infinity" in one_line(checkout.evaluate(run))


def test_a_pickle_in_arrays_is_refused_and_not_executed(checkout, whole, tmp_path):
    run, harm = copy_of(whole[1], tmp_path), Harm(tmp_path / "harm")
    features = np.array([[harm]], dtype=object)
    np.save(tmp_path / "features.npy", features)
    answer = checkout("clusterloss_tf/evaluate.py", run, "--gallery", tmp_path)
    assert "has no readable features" in one_line(answer)
    np.savez(run / "predictions.npz", embeddings=features)
    assert "no readable predictions.npz" in one_line(checkout.evaluate(run))
    assert not harm.path.exists()


@pytest.mark.parametrize(
    ("found", "other", "difference"),
    [
        ("dim: 8", "dim: 9", "embedding.bias is (8,), the config expects (9,)"),
        ("growth: 4", "growth: 5", "the config expects"),
        ("depth: 7", "depth: 10", "is absent, the config expects"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_with_the_difference(
    checkout, stopped, tmp_path, found, other, difference
):
    run = copy_of(stopped, tmp_path)
    change_config(run, found, other)
    for answer in (checkout.resume(run), checkout.pred(run)):
        assert "is of another model: " in one_line(answer) and difference in answer.err
    assert (run / "checkpoints/000000003").exists()


def test_a_file_of_weights_of_something_else_is_refused(checkout, stopped, tmp_path):
    run = copy_of(stopped, tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.zeros(3)
    replace(run, "model.weights.h5", (tmp_path / "other.h5").read_bytes())
    assert "a is (3,), the config expects absent" in one_line(checkout.pred(run))


def test_images_that_changed_since_the_run_began_are_refused(checkout, folder):
    run = checkout.train(*of(folder), strike="1:SIGTERM").run
    shutil.copy(folder / "a/00.png", folder / "a/new.png")
    assert "not what it was" in one_line(checkout.resume(run))
    assert "give it as --input" in one_line(checkout.pred(run))
    (folder / "a/new.png").unlink()
    assert checkout.resume(run).code == 0


def test_a_finished_run_and_other_options_are_refused_by_resume(checkout, whole, stopped):
    assert "already finished" in one_line(checkout.resume(whole[1]))
    answer = checkout("clusterloss_tf/train.py", "--resume", stopped, "--model.dim", 5)
    assert "--model.dim 5: the resumed run has 8" in one_line(answer)


def test_what_a_run_wrote_down_is_json(whole):
    for name in ("meta.json", "scores.json", "baseline.json", "images/captions.json"):
        json.loads((whole[1] / name).read_text())
