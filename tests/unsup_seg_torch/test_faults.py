"""Bad input, bad data, damage and attack: one line each, and nothing lost."""

import pytest

from tests.entry_scripts import one_line
from tests.every_paper import NO_CONFIG, Configs, Damaged, Environment, Folders, Predictions
from unsup_seg_torch.config import Config


class TestMachine(Environment):
    pass


class TestConfigs(Configs):
    config = Config

    @pytest.fixture(
        params=[
            *NO_CONFIG,
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
        ]
    )
    def wrong(self, request):
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


def test_what_is_no_picture_is_refused(refused, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png: not a picture" in refused("--dataset.path", tmp_path / "text.png")
    reason = refused("--dataset.path", "null", "--dataset.name", "fotos")
    assert "dataset.name fotos is not known: photographs, bsds500" in reason


def test_a_run_that_diverges_is_stopped_with_the_step_named(checkout):
    answer = checkout.train("--training.lr", 1e30, "--training.optimizer", "sgd")
    assert "became" in one_line(answer) and "at step" in answer.err


def test_weights_that_do_not_fit_are_refused(checkout, finished_run, tmp_path, refused):
    weights = next(finished_run[1].glob("checkpoints/*/model.safetensors"))
    reason = refused("--model.weights", weights, "--model.width", 6)
    assert "is of another model: decoder.down.0.0.depthwise.weight is (4, 1, 3, 3)" in reason
    (tmp_path / "text.safetensors").write_text("no weights")
    assert "is no readable checkpoint" in refused("--model.weights", tmp_path / "text.safetensors")
