"""Invalid input, bad images, damaged and malicious files: an error of one line, nothing lost."""

import json

import numpy as np
import pytest

from dti_torch.config import Config
from tests.entry_scripts import change_config, copy_of, one_line
from tests.every_paper import (
    NO_CONFIG,
    Configs,
    Damaged,
    DistinctImages,
    Environment,
    Folders,
    Predictions,
)
from tests.image_files import write


def folder_options(folder, k=2):
    options = {"dataset.name": "folder", "dataset.path": folder, "dataset.n_images": "null"}
    options |= {"model.n_prototypes": k, "training.n_epochs": 1}
    return [word for key, value in options.items() for word in (f"--{key}", value)]


class TestEnvironment(Environment):
    pass


class TestConfigs(Configs):
    config = Config

    @pytest.fixture(
        params=[
            *NO_CONFIG,
            (
                "model: {n_prototype: 3}",
                "no key model.n_prototype; did you mean model.n_prototypes",
            ),
            ("model: {n_prototypes: many}", "model.n_prototypes: expected int"),
            ("model: {transformations: [identity, rotate]}", "model.transformations: expected"),
            ("model: {n_prototypes: 0}", "model.n_prototypes is 0: expected 1 or more"),
            ("model: {n_prototypes: -3}", "model.n_prototypes is -3: expected 1 or more"),
            ("model: {transformations: []}", "model.transformations is []"),
            ("model: {curriculum: [1]}", "model.curriculum is (1.0,): expected 3 epochs"),
            ("model: {curriculum: [3, 2, 1]}", "expected epochs in increasing order"),
            ("model: {curriculum: [-1, 2, 3]}", "expected epochs in increasing order"),
            ("model: {kernel_size: 4}", "model.kernel_size is 4: expected an odd number"),
            ("model: {var_min: 0}", "model.var_min is 0.0: expected a number above 0"),
            ("dataset: {size: 0}", "dataset.size is 0: expected 1 or more"),
            ("dataset: {margin: -1}", "dataset.margin is -1: expected 0 or more"),
            ("training: {lr: .nan}", "training.lr: expected a finite number"),
            ("training: {lr: .inf}", "training.lr: expected a finite number"),
            ("training: {lr: -1e-3}", "training.lr is -0.001: expected a number above 0"),
            ("training: {batch_size: 1}", "training.batch_size is 1: expected 2 or more"),
            ("training: {n_epochs: 0}", "training.n_epochs is 0: expected 1 or more"),
        ]
    )
    def bad_config(self, request):
        return request.param


class TestFolders(Folders):
    of = staticmethod(folder_options)


class TestDistinctImages(DistinctImages):
    with_clusters = ("--model.n_prototypes", 5, "--dataset.n_images", "null")


class TestPredictions(Predictions):
    pass


class TestDamaged(Damaged):
    weights, state = "model.safetensors", "state.safetensors"
    option = ("--model.n_prototypes", 4)

    @pytest.fixture(
        params=[
            (
                "n_prototypes: 4",
                "n_prototypes: 5",
                "n_prototypes is 4, the config expects 5",
            ),
            ("encoder: strided", "encoder: resnet20", "encoder.layers"),
            ("- tps", "- color", "regressors.2"),
            ("name: dtikmeans", "name: dtigmm", "mixing_logits is absent, the config expects ("),
        ]
    )
    def change(self, request):
        return request.param


# ---- configuration


def test_command_line_overrides_a_config_with_bom_and_exponent(checkout, tmp_path):
    text = "\ufefftraining:\r\n  lr: 1e-3\r\n  n_epochs: 9\r\ndataset: {n_images: 9}\r\n"
    text += "model: {n_prototypes: 2, encoder: strided, transformations: [identity]}\r\n"
    (tmp_path / "windows.yml").write_bytes(text.encode())
    options = ["--config", tmp_path / "windows.yml", "--training.n_epochs", 1]
    answer = checkout("dti_torch/train.py", *options)
    assert answer.code == 0 and "epoch 1 of 1" in answer.err, answer.err


def test_more_prototypes_than_images_is_an_error(refused, folder):
    reason = "model.n_prototypes is 7, but there are only 6 images"
    assert reason in refused(*folder_options(folder, k=7))


# ---- images


def test_one_image_is_an_error(refused, tmp_path):
    write(tmp_path / "one/a.png")
    assert "only 1 image: clustering needs two" in refused(*folder_options(tmp_path / "one", k=1))


@pytest.mark.parametrize("name", ["dtikmeans", "dtigmm"])
def test_identical_images_give_finite_scores(checkout, tmp_path, name):
    for i in range(9):
        write(tmp_path / f"same/{i}.png")
    init = ["--model.init", "kmeans" if name == "dtigmm" else "sample"]
    run = checkout.train(*folder_options(tmp_path / "same", k=3), "--model.name", name, *init).run
    assert np.isfinite(checkout.score(run)["loss"])  # NaN in JSON is an error
    distances = np.load(run / "predictions.npz")["distances"]
    assert np.isfinite(distances).all()


@pytest.mark.parametrize(
    ("n", "batch_size"),
    [(5, 4), (5, 2), (2, 128)],  # a last batch of one, twice; a batch larger than the dataset
)
def test_any_batch_size_trains(checkout, n, batch_size):
    sizes = ["--dataset.n_images", n, "--training.batch_size", batch_size]
    answer = checkout.train(*sizes, "--model.n_prototypes", 2)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == n


def test_one_prototype_trains(checkout):
    run = checkout.train("--model.n_prototypes", 1, "--training.n_epochs", 1).run
    assert checkout.score(run)["n_empty_clusters"] == 0


def test_subset_larger_than_the_dataset_is_an_error(refused):
    assert "dataset.n_images is 1798: the dataset has 1797" in refused("--dataset.n_images", 1798)


# ---- training


def test_nan_loss_stops_and_names_the_step(checkout):
    answer = checkout.train("--training.lr", 1e30, "--training.check_interval", 1)
    assert "loss became" in one_line(answer) and "at step 2; no checkpoint" in answer.err
    assert json.loads((answer.run / "meta.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("kill_at", "reason"),
    [
        ("", "step 8: predicted transformations are NaN or infinite"),
        ("1:SIGTERM", "became NaN or infinite at step 7"),  # saved before the loss shows it
    ],
)
def test_diverging_run_keeps_the_last_good_checkpoint(checkout, kill_at, reason):
    run = checkout.train(kill_at="6:SIGTERM").run
    config = run / "config.yml"
    config.write_text(config.read_text().replace("lr: 0.01", "lr: 1.0e+300"))
    assert reason in one_line(checkout.resume(run, kill_at=kill_at))
    assert [path.name for path in run.glob("checkpoints/*")] == ["000000006"]
    assert checkout.pred(run).code == 0


def test_empty_clusters_are_reassigned_and_logged(checkout):
    # identical prototypes: one wins nearly all images
    answer = checkout.train("--model.init", "constant", "--training.check_interval", 2)
    assert "step 2: empty clusters [" in answer.err
    assert "empty clusters" in (answer.run / "train.log").read_text()
    assert checkout.score(answer.run)["n_empty_clusters"] < 3


# ---- run folders that do not match their config


def test_resume_with_another_number_of_images_is_an_error(checkout, stopped_run, tmp_path):
    run = copy_of(stopped_run, tmp_path)
    change_config(run, "n_images: 120", "n_images: 60")
    assert "winners is (120,), the config expects (60,)" in one_line(checkout.resume(run))


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("margin: 1", "margin: 2", "images (12, 12, 1), the prototypes are (10, 10, 1)"),
        ("colorize: false", "colorize: true", "(10, 10, 3), the prototypes are (10, 10, 1)"),
    ],
)
def test_pred_with_images_of_another_shape_is_an_error(
    checkout, stopped_run, tmp_path, old, new, difference
):
    run = copy_of(stopped_run, tmp_path)
    change_config(run, old, new)
    assert difference in one_line(checkout.pred(run))
