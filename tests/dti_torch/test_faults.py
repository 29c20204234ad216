"""Bad input, bad data, damage and attack: one line each, and nothing lost."""

import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from common import UserError, cli
from dti_torch.config import Config
from tests.entry_scripts import Harm, change_config, copy_of, one_line, replace
from tests.every_paper import Damaged, Machine


def write(path, *size, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size or (8, 8), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    for i in range(6):
        write(tmp_path / f"photos/{i}.png", seed=i)
    return tmp_path / "photos"


def of(folder, k=2):
    own = {"dataset.name": "folder", "dataset.path": folder, "dataset.n_images": "null"}
    own |= {"model.n_prototypes": k, "training.n_epochs": 1}
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
        ("model: {n_prototypes: [", "is no YAML"),
        ("model: {n_prototypes: !!python/object/apply:os.getcwd []}", "is no YAML"),
        ("model: {n_prototype: 3}", "no key model.n_prototype; did you mean model.n_prototypes"),
        ("model: {n_prototypes: many}", "model.n_prototypes: expected int"),
        ("model: {transformations: [identity, rotate]}", "model.transformations: expected"),
        ("model: {n_prototypes: 0}", "model.n_prototypes is 0: expected 1 or more"),
        ("model: {n_prototypes: -3}", "model.n_prototypes is -3: expected 1 or more"),
        ("model: {transformations: []}", "model.transformations is []"),
        ("model: {curriculum: [1]}", "model.curriculum is (1.0,): expected 3"),
        ("model: {curriculum: [3, 2, 1]}", "expected epochs in rising order"),
        ("model: {curriculum: [-1, 2, 3]}", "expected epochs in rising order"),
        ("model: {kernel_size: 4}", "model.kernel_size is 4: expected odd"),
        ("model: {var_min: 0}", "model.var_min is 0.0: expected more than 0"),
        ("dataset: {size: 0}", "dataset.size is 0: expected 1 or more"),
        ("dataset: {margin: -1}", "dataset.margin is -1: expected 0 or more"),
        ("training: {lr: .nan}", "training.lr: expected a finite number"),
        ("training: {lr: .inf}", "training.lr: expected a finite number"),
        ("training: {lr: -1e-3}", "training.lr is -0.001: expected a number above 0"),
        ("training: {batch_size: 1}", "training.batch_size is 1: expected 2 or more"),
        ("training: {n_epochs: 0}", "training.n_epochs is 0: expected 1 or more"),
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
    assert "digits.yml" in one_line(checkout("dti_torch/train.py", "--config", "mist.yml"))


def test_the_command_line_wins_over_a_file_with_byte_order_mark_and_exponent(checkout, tmp_path):
    text = "\ufefftraining:\r\n  lr: 1e-3\r\n  n_epochs: 9\r\ndataset: {n_images: 9}\r\n"
    text += "model: {n_prototypes: 2, encoder: strided, transformations: [identity]}\r\n"
    (tmp_path / "windows.yml").write_bytes(text.encode())
    options = ["--config", tmp_path / "windows.yml", "--training.n_epochs", 1]
    answer = checkout("dti_torch/train.py", *options)
    assert answer.code == 0 and "epoch 1 of 1" in answer.err, answer.err


def test_more_prototypes_than_images_are_refused(refused, photos):
    reason = "model.n_prototypes is 7, but there are only 6 images"
    assert reason in refused(*of(photos, k=7))


# ---- images


def test_a_missing_an_empty_and_a_lonely_folder_are_refused(refused, tmp_path):
    assert "absent" in refused(*of(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(*of(tmp_path / "empty"))
    write(tmp_path / "one/a.png")
    assert "only 1 image: clustering needs two" in refused(*of(tmp_path / "one", k=1))


@pytest.fixture
def damaged(photos):
    """Five good images and three bad ones."""
    os.truncate(write(photos / "cut.jpg", 64, 64), 500)
    (photos / "text.png").write_text("no picture")
    (photos / "zero.png").write_bytes(b"")
    return photos


def test_bad_images_are_skipped_named_and_counted(checkout, damaged):
    answer = checkout.train(*of(damaged), "--dataset.max_bad", 0.4)
    assert answer.code == 0, answer.err
    log = (answer.run / "train.log").read_text()
    for name in ("cut.jpg", "text.png", "zero.png"):
        assert f"{name}': " in answer.err and name in log
    assert "3 of 9 images cannot be read" in log
    assert checkout.score(answer.run)["n"] == 6


def test_too_many_bad_images_are_refused(refused, damaged):
    assert "3 of 9 images cannot be read, more than dataset.max_bad 0.01" in refused(*of(damaged))


def test_images_of_all_modes_sizes_and_names_train_together(checkout, tmp_path):
    folder = tmp_path / "all kinds"
    write(folder / "gray.png", 9, 5)
    write(folder / "with\nbreak.png", 7, 7, 4)
    write(folder / "é ü.png", 20, 30, 3)
    write(folder / "tiny.png", 1, 1)
    write(folder / "line.png", 1, 40)
    write(
        folder / "turned.jpg",
        12,
        6,
        exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0",
    )
    Image.new("CMYK", (8, 8), (9, 80, 30, 5)).save(folder / "cmyk.jpg")
    Image.new("P", (8, 8), 3).save(folder / "palette.png")
    Image.new("I;16", (8, 8), 40000).save(folder / "deep.png")
    (folder / "circle").symlink_to(folder)
    answer = checkout.train(*of(folder, k=3), "--dataset.size", 16)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == 9


@pytest.mark.parametrize("name", ["dtikmeans", "dtigmm"])
def test_equal_images_end_in_finite_scores(checkout, tmp_path, name):
    for i in range(9):
        write(tmp_path / f"same/{i}.png")
    init = ["--model.init", "kmeans" if name == "dtigmm" else "sample"]
    run = checkout.train(*of(tmp_path / "same", k=3), "--model.name", name, *init).run
    assert np.isfinite(checkout.score(run)["loss"])  # JSON with NaN is refused
    distances = np.load(run / "predictions.npz")["distances"]
    assert np.isfinite(distances).all()


@pytest.mark.parametrize(
    ("n", "batch_size"),
    [(5, 4), (5, 2), (2, 128)],  # a last batch of one, of one, a batch too large
)
def test_batches_need_not_divide_the_images(checkout, n, batch_size):
    sizes = ["--dataset.n_images", n, "--training.batch_size", batch_size]
    answer = checkout.train(*sizes, "--model.n_prototypes", 2)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == n


def test_one_prototype_is_enough(checkout):
    run = checkout.train("--model.n_prototypes", 1, "--training.n_epochs", 1).run
    assert checkout.score(run)["n_empty_clusters"] == 0


def test_a_subset_larger_than_the_set_is_refused(refused):
    assert "dataset.n_images is 1798, the data set has 1797" in refused("--dataset.n_images", 1798)


# ---- the run


def test_a_nan_loss_stops_with_the_step_named(checkout):
    answer = checkout.train("--training.lr", 1e30, "--training.check_interval", 1)
    assert "loss became" in one_line(answer) and "at step 2; no checkpoint" in answer.err
    assert json.loads((answer.run / "meta.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("strike", "reason"),
    [
        ("", "step 8: predicted transformations are NaN or infinite"),
        ("1:SIGTERM", "became NaN or infinite at step 7"),  # to be saved before that shows
    ],
)
def test_a_run_that_diverges_keeps_the_last_good_checkpoint(checkout, strike, reason):
    run = checkout.train(strike="6:SIGTERM").run
    config = run / "config.yml"
    config.write_text(config.read_text().replace("lr: 0.01", "lr: 1.0e+300"))
    assert reason in one_line(checkout.resume(run, strike=strike))
    assert [path.name for path in run.glob("checkpoints/*")] == ["000000006"]
    assert checkout.pred(run).code == 0


def test_empty_clusters_start_again_and_are_logged(checkout):
    # all prototypes are equal and one wins nearly everything
    same = ["--model.init", "constant", "--training.check_interval", 2]
    answer = checkout.train(*same)
    assert "step 2: empty clusters [" in answer.err
    assert "empty clusters" in (answer.run / "train.log").read_text()
    assert checkout.score(answer.run)["n_empty_clusters"] < 3


def test_an_output_that_cannot_be_written_is_refused(checkout, whole, tmp_path):
    _, run = whole
    (tmp_path / "file").write_text("")
    answer = checkout.pred(run, "--out", tmp_path / "file" / "below")
    assert "cannot write" in one_line(answer)


def test_new_images_that_are_absent_are_one_line(checkout, whole, tmp_path):
    _, run = whole
    assert "nowhere is absent" in one_line(checkout.pred(run, "--input", tmp_path / "nowhere"))
    assert not list(run.glob("predictions_nowhere"))


# ---- damaged and foreign run folders


def test_evaluate_before_pred_is_one_line(checkout, whole, tmp_path):
    run = copy_of(whole[1], tmp_path)
    scores = (run / "scores.json").read_bytes()
    os.truncate(run / "predictions.npz", 1000)
    assert "no readable predictions.npz: run pred.py on it first" in one_line(
        checkout.evaluate(run)
    )
    (run / "predictions.npz").unlink()
    assert "no readable predictions.npz: run pred.py on it first" in one_line(
        checkout.evaluate(run)
    )
    assert (run / "scores.json").read_bytes() == scores


def test_a_pickle_in_the_predictions_is_refused_and_not_executed(checkout, whole, tmp_path):
    run, harm = copy_of(whole[1], tmp_path), Harm(tmp_path / "harm")
    np.savez(run / "predictions.npz", clusters=np.array([harm], dtype=object))
    assert "no readable predictions.npz" in one_line(checkout.evaluate(run))
    assert not harm.path.exists()


@pytest.mark.parametrize(
    ("found", "other", "difference"),
    [
        (
            "n_prototypes: 4",
            "n_prototypes: 5",
            "prototypes is (4, 1, 10, 10), the config expects (5, 1, 10, 10)",
        ),
        ("encoder: strided", "encoder: resnet20", "encoder.layers"),
        ("- tps", "- color", "regressors.2"),
        ("name: dtikmeans", "name: dtigmm", "is absent, the config expects (4,)"),
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


def test_a_file_of_weights_of_something_else_is_refused(checkout, stopped, tmp_path):
    run = copy_of(stopped, tmp_path)
    save_file({"embedding": np.zeros(3)}, tmp_path / "other.safetensors")
    replace(run, "model.safetensors", (tmp_path / "other.safetensors").read_bytes())
    assert "embedding is (3,), the config expects absent" in one_line(checkout.pred(run))


def test_another_number_of_images_is_no_way_to_go_on(checkout, stopped, tmp_path):
    run = copy_of(stopped, tmp_path)
    change_config(run, "n_images: 120", "n_images: 60")
    assert "winners is (120,), the config expects (60,)" in one_line(checkout.resume(run))


@pytest.mark.parametrize(
    ("found", "other", "difference"),
    [
        ("margin: 1", "margin: 2", "images (12, 12, 1), the prototypes are (10, 10, 1)"),
        ("colorize: false", "colorize: true", "(10, 10, 3), the prototypes are (10, 10, 1)"),
    ],
)
def test_images_of_another_config_are_refused(
    checkout, stopped, tmp_path, found, other, difference
):
    run = copy_of(stopped, tmp_path)
    change_config(run, found, other)
    assert difference in one_line(checkout.pred(run))


def test_images_that_changed_since_the_run_began_are_refused(checkout, photos):
    run = checkout.train(*of(photos), strike="1:SIGTERM").run
    write(photos / "new.png", seed=9)
    assert "not what it was" in one_line(checkout.resume(run))
    assert "give it as --input" in one_line(checkout.pred(run))
    (photos / "new.png").unlink()
    assert checkout.resume(run).code == 0


def test_a_finished_run_and_other_options_are_refused_by_resume(checkout, whole, stopped):
    assert "already finished" in one_line(checkout.resume(whole[1]))
    answer = checkout("dti_torch/train.py", "--resume", stopped, "--model.n_prototypes", 5)
    assert "--model.n_prototypes 5: the resumed run has 4" in one_line(answer)
