"""Bad input, bad data, damage and attack: one line each, and nothing lost."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from common import UserError, cli
from deepcluster_torch.config import Config
from tests.entry_scripts import Harm, change_config, copy_of, one_line, replace
from tests.every_paper import Damaged, Machine


def write(path, *size, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size or (8, 8), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def flat(tmp_path):
    for i in range(6):
        write(tmp_path / f"photos/{i}.png", seed=i)
    return tmp_path / "photos"


def of(folder, k=2):
    own = {"dataset.name": "folder", "dataset.path": folder, "dataset.n_images": "null"}
    own |= {"model.n_clusters": k, "model.heads": "[]", "training.n_epochs": 1}
    return [word for key, value in own.items() for word in (f"--{key}", value)]


class TestMachine(Machine):
    pass


class TestDamaged(Damaged):
    weights, state = "model.safetensors", "state.safetensors"


# ---- configuration


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected sections"),
        ("- a\n- b", "expected sections"),
        ("model: {n_clusters: [", "is no YAML"),
        ("model: {n_clusters: !!python/object/apply:os.getcwd []}", "is no YAML"),
        ("model: {n_cluster: 3}", "no key model.n_cluster; did you mean model.n_clusters"),
        ("model: {n_clusters: many}", "model.n_clusters: expected int"),
        ("model: {mode: v3}", "model.mode: expected one of auto, v1, v2, frozen"),
        ("model: {n_clusters: 0}", "model.n_clusters is 0: expected 1 or more"),
        ("model: {n_clusters: -3}", "model.n_clusters is -3: expected 1 or more"),
        ("model: {n_groups: 11}", "model.n_groups is 11: expected no more than model.n_clusters"),
        ("model: {heads: [8, 1]}", "model.heads is (8, 1): expected 2 or more each"),
        ("model: {temperature: 0}", "model.temperature is 0.0: expected more than 0"),
        ("model: {centre: 1.5}", "model.centre is 1.5: expected a share"),
        ("model: {pretrained: true, weights: w.pth}", "expected false beside model.weights"),
        ("dataset: {size: 0}", "dataset.size is 0: expected 1 or more"),
        ("dataset: {held_out: 1.0}", "dataset.held_out is 1.0: expected a share below 1"),
        ("training: {lr: .nan}", "training.lr: expected a finite number"),
        ("training: {lr: -1e-3}", "training.lr is -0.001: expected a number above 0"),
        ("training: {head_lr: 0}", "training.head_lr is 0.0: expected a number above 0"),
        ("training: {batch_size: 1}", "training.batch_size is 1: expected 2 or more"),
        ("training: {n_epochs: 0}", "training.n_epochs is 0: expected 1 or more"),
        ("training: {crop_scale: [0.9, 0.2]}", "training.crop_scale is (0.9, 0.2): expected two"),
        ("training: {reassign: 0}", "training.reassign is 0.0: expected more than 0"),
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
    answer = checkout("deepcluster_torch/train.py", "--config", "mist.yml")
    assert "digits.yml" in one_line(answer)


def test_more_clusters_than_images_are_refused(refused, flat):
    assert "model.n_clusters is 7, but there are only 6 images" in refused(*of(flat, k=7))
    more = (*of(flat), "--model.heads", "[9]")
    assert "model.heads is 9, but there are only 6 images" in refused(*more)


def test_a_frozen_trunk_that_is_not_given_is_refused(refused):
    assert "give model.weights FILE" in refused("--model.mode", "frozen")


def test_absent_weights_are_refused_by_name(refused, tmp_path):
    assert "nowhere.pth" in refused("--model.weights", tmp_path / "nowhere.pth")


# ---- images


def test_a_missing_an_empty_and_a_lonely_folder_are_refused(refused, tmp_path):
    assert "absent" in refused(*of(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(*of(tmp_path / "empty"))
    write(tmp_path / "one/a.png")
    assert "only 1 image: clustering needs two" in refused(*of(tmp_path / "one", k=1))


def test_bad_images_are_skipped_named_and_counted(checkout, refused, flat):
    os.truncate(write(flat / "cut.jpg", 64, 64), 500)
    (flat / "text.png").write_text("no picture")
    (flat / "zero.png").write_bytes(b"")
    answer = checkout.train(*of(flat), "--dataset.max_bad", 0.4)
    assert answer.code == 0, answer.err
    log = (answer.run / "train.log").read_text()
    for name in ("cut.jpg", "text.png", "zero.png"):
        assert f"{name}': " in answer.err and name in log
    assert "3 of 9 images cannot be read" in log
    assert checkout.score(answer.run)["n"] == 6
    assert "more than dataset.max_bad 0.01" in refused(*of(flat))


def test_images_of_all_modes_sizes_and_names_train_together(checkout, tmp_path):
    folder = tmp_path / "all kinds"
    write(folder / "gray.png", 9, 5)
    write(folder / "with\nbreak.png", 7, 7, 4)
    write(folder / "é ü.png", 20, 30, 3)
    write(folder / "tiny.png", 1, 1)
    write(folder / "line.png", 1, 40)
    Image.new("CMYK", (8, 8), (9, 80, 30, 5)).save(folder / "cmyk.jpg")
    Image.new("P", (8, 8), 3).save(folder / "palette.png")
    Image.new("I;16", (8, 8), 40000).save(folder / "deep.png")
    (folder / "circle").symlink_to(folder)
    answer = checkout.train(*of(folder, k=3), "--dataset.size", 16)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == 8


@pytest.mark.parametrize("mode", ["v1", "v2"])
def test_equal_images_end_in_finite_scores(checkout, tmp_path, mode):
    for i in range(9):
        write(tmp_path / f"same/{i}.png")
    answer = checkout.train(*of(tmp_path / "same", k=3), "--model.mode", mode)
    assert answer.code == 0, answer.err
    assert np.isfinite(checkout.score(answer.run)["distance"])


@pytest.mark.parametrize(("n", "batch_size"), [(5, 4), (5, 2), (2, 128)])
@pytest.mark.parametrize("mode", ["v1", "v2"])
def test_batches_need_not_divide_the_images(checkout, n, batch_size, mode):
    sizes = ["--dataset.n_images", n, "--training.batch_size", batch_size, "--model.heads", "[]"]
    answer = checkout.train(*sizes, "--model.n_clusters", 2, "--model.mode", mode)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == n


def test_one_cluster_is_enough(checkout):
    run = checkout.train("--model.n_clusters", 1, "--training.n_epochs", 1).run
    assert checkout.score(run)["n_empty_clusters"] == 0


# ---- the run


def test_a_nan_loss_stops_with_the_step_named(checkout):
    answer = checkout.train("--training.lr", 1e30)
    assert "became" in one_line(answer) and "lower training.lr" in answer.err
    assert json.loads((answer.run / "meta.json").read_text())["status"] == "failed"


def test_a_run_that_diverges_keeps_the_last_good_checkpoint(checkout):
    run = checkout.train(strike="4:SIGTERM").run
    change_config(run, "lr: 0.05", "lr: 1.0e+300")
    assert "became" in one_line(checkout.resume(run))
    assert [path.name for path in run.glob("checkpoints/*")] == ["000000004"]
    assert checkout.pred(run).code == 0


def test_an_output_that_cannot_be_written_is_refused(checkout, whole, tmp_path):
    (tmp_path / "file").write_text("")
    answer = checkout.pred(whole[1], "--out", tmp_path / "file" / "below")
    assert "cannot write" in one_line(answer)


def test_new_images_that_are_absent_are_one_line(checkout, whole, tmp_path):
    run = whole[1]
    assert "nowhere is absent" in one_line(checkout.pred(run, "--input", tmp_path / "nowhere"))
    assert not list(run.glob("predictions_nowhere"))


# ---- damaged and foreign run folders


def test_evaluate_before_pred_is_one_line(checkout, whole, tmp_path):
    run = copy_of(whole[1], tmp_path)
    os.truncate(run / "predictions.npz", 1000)
    reason = "no readable predictions.npz: run pred.py on it first"
    assert reason in one_line(checkout.evaluate(run))
    (run / "predictions.npz").unlink()
    assert reason in one_line(checkout.evaluate(run))


def test_a_pickle_in_the_predictions_is_refused_and_not_executed(checkout, whole, tmp_path):
    run, harm = copy_of(whole[1], tmp_path), Harm(tmp_path / "harm")
    np.savez(run / "predictions.npz", clusters=np.array([harm], dtype=object))
    assert "no readable predictions.npz" in one_line(checkout.evaluate(run))
    assert not harm.path.exists()


@pytest.mark.parametrize(
    ("found", "other", "difference"),
    [
        ("width: 4", "width: 8", "is (16, 32), the config expects (16, 64)"),
        ("embedding: 8", "embedding: 9", "the config expects"),
        ("- 8\n  - 6", "- 8\n  - 7", "prototypes.head1 is (6, 8), the config expects (7, 8)"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_the_difference(
    checkout, stopped, tmp_path, found, other, difference
):
    run = copy_of(stopped, tmp_path)
    change_config(run, found, other)
    for answer in (checkout.resume(run), checkout.pred(run)):
        assert "is of another model: " in one_line(answer) and difference in answer.err
    assert (run / "checkpoints/000000003").exists()


def test_another_number_of_clusters_is_refused_with_the_difference(checkout, whole, tmp_path):
    run = copy_of(whole[1], tmp_path)
    change_config(run, "n_clusters: 4", "n_clusters: 5")
    assert "it has 4 clusters, the config expects 5" in one_line(checkout.pred(run))


def test_a_file_of_weights_of_something_else_is_refused(checkout, stopped, tmp_path):
    run = copy_of(stopped, tmp_path)
    save_file({"embedding": np.zeros(3)}, tmp_path / "other.safetensors")
    replace(run, "model.safetensors", (tmp_path / "other.safetensors").read_bytes())
    # a manifest and a progress that do not mind
    assert "embedding is (3,), the config expects absent" in one_line(checkout.pred(run))


def test_images_that_changed_since_the_run_began_are_refused(checkout, flat):
    run = checkout.train(*of(flat), strike="1:SIGTERM").run
    write(flat / "new.png", seed=9)
    assert "not what it was" in one_line(checkout.resume(run))
    assert "give it as --input" in one_line(checkout.pred(run))
    (flat / "new.png").unlink()
    assert checkout.resume(run).code == 0


def test_a_finished_run_and_other_options_are_refused_by_resume(checkout, whole, stopped):
    assert "already finished" in one_line(checkout.resume(whole[1]))
    answer = checkout("deepcluster_torch/train.py", "--resume", stopped, "--model.n_clusters", 5)
    assert "--model.n_clusters 5: the resumed run has 4" in one_line(answer)
