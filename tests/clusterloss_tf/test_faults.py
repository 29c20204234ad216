"""Invalid options, bad images, damaged files: one-line errors, and nothing is lost."""

import json

import numpy as np
import pytest

from clusterloss_tf.config import Config
from tests.clusterloss_tf.conftest import write_photos
from tests.entry_scripts import PickleBomb, change_config, copy_of, one_line
from tests.every_paper import (
    NO_CONFIG,
    Configs,
    Damaged,
    DistinctImages,
    Environment,
    Folders,
    Predictions,
)
from tests.image_files import write, write_all_kinds, write_bad


@pytest.fixture
def folder(tmp_path):
    return write_photos(tmp_path / "my photos", n=6, classes=("a", "b", "c"))


def of(folder):
    return ["--dataset.path", folder, "--training.n_epochs", 1]


class TestEnvironment(Environment):
    pass


class TestConfigs(Configs):
    config = Config

    @pytest.fixture(
        params=[
            *NO_CONFIG,
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
            ("training: {warmup: 1}", "training.warmup is 1.0: expected 0 or more, below 1"),
            ("training: {milestones: [2]}", "training.milestones is (2.0,): expected fractions"),
            ("training: {batch_size: 1}", "training.batch_size is 1: expected 2 or more"),
            ("training: {images_per_class: 1}", "training.images_per_class is 1: expected 2 or"),
            ("training: {n_epochs: -1}", "training.n_epochs is -1: expected 0 or more"),
        ]
    )
    def bad_config(self, request):
        return request.param


class TestFolders(Folders):
    n = 18
    of_one_size = ("--dataset.size", 8)

    of = staticmethod(of)

    def assert_scored(self, scores, n):
        assert np.isfinite(scores["recall_at_1"])  # of the test images, some of the n


class TestDistinctImages(DistinctImages):
    with_clusters = ("--model.n_clusters", 5)


class TestPredictions(Predictions):
    pass


class TestDamaged(Damaged):
    option = ("--model.dim", 8)

    @pytest.fixture(
        params=[
            ("dim: 8", "dim: 9", "embedding.bias is (8,), the config expects (9,)"),
            ("growth: 4", "growth: 5", "the config expects"),
            ("depth: 7", "depth: 10", "is absent, the config expects"),
        ]
    )
    def change(self, request):
        return request.param


# ---- configuration


def test_command_line_overrides_config_saved_on_windows(checkout, photos, tmp_path):
    text = "\ufefftraining:\r\n  lr: 1e-3\r\n  n_epochs: 9\r\n  batch_size: 12\r\n"
    text += f"dataset: {{name: folder, path: {photos}}}\r\nmodel: {{depth: 7, growth: 4}}\r\n"
    (tmp_path / "windows.yml").write_bytes(text.encode())
    options = ["--config", tmp_path / "windows.yml", "--training.n_epochs", 1]
    result = checkout("clusterloss_tf/train.py", *options)
    assert result.code == 0 and "epoch 1 of 1" in result.err, result.err


def test_more_clusters_than_test_images_are_refused(refused):
    reason = "model.n_clusters is 26, but there are only 25 test images"
    assert reason in refused("--model.n_clusters", 26)


def test_superclasses_of_other_datasets_are_refused(refused):
    assert "is for cifar100, folder has none" in refused("--training.sampler", "superclasses")


# ---- images


def test_too_few_classes_or_images_are_refused(refused, tmp_path):
    write(tmp_path / "one/a.png")
    assert "has no labels: expected two or more sub-folders" in refused(*of(tmp_path / "one"))
    write(tmp_path / "single/a/0.png")
    write(tmp_path / "single/b/0.png")
    assert "too few to hold out two for testing" in refused(*of(tmp_path / "single"))
    reason = "needs two classes to train on and two to test on"
    assert reason in refused(*of(tmp_path / "single"), "--dataset.protocol", "disjoint")


@pytest.fixture
def damaged(folder):
    write_bad(folder / "a")
    return folder


@pytest.fixture
def all_kinds(folder):
    write_all_kinds(folder / "é ü")  # one more class
    return folder


@pytest.mark.parametrize("loss", ["facility", "triplet", "proxy_anchor"])
def test_equal_images_have_finite_scores(checkout, tmp_path, loss):
    for name in "ab":
        for i in range(6):
            write(tmp_path / f"same/{name}/{i}.png")
    result = checkout.train(*of(tmp_path / "same"), "--training.loss", loss)
    assert result.code == 0, result.err
    scores = checkout.score(result.run)
    assert all(np.isfinite(value) for value in scores.values() if isinstance(value, float))


@pytest.mark.parametrize("batch_size", [2, 7, 500])  # one class; no divisor; more than all
def test_any_batch_size_trains(checkout, batch_size):
    options = ["--training.batch_size", batch_size, "--training.n_epochs", 1]
    result = checkout.train(*options, "--training.images_per_class", 2)
    assert result.code == 0, result.err
    assert ("there is nothing to compare" in result.err) == (batch_size == 2)


# ---- the run


def test_nan_loss_fails_and_names_the_step(checkout):
    result = checkout.train("--training.lr", 1e38, "--model.normalize", "false")
    assert "the loss became" in one_line(result) and " at step " in result.err
    assert "epoch 3" not in result.err
    if result.run.exists():
        assert json.loads((result.run / "meta.json").read_text())["status"] == "failed"


def test_diverging_run_keeps_last_good_checkpoint(checkout):
    run = checkout.train("--model.normalize", "false", kill_at="3:SIGTERM").run
    change_config(run, "lr: 0.001", "lr: 1.0e+38")
    assert "became NaN or infinite" in one_line(checkout.resume(run))
    assert [path.name for path in run.glob("checkpoints/*")] == ["000000003"]
    assert checkout.pred(run).code == 0


def test_extract_to_unwritable_folder_is_refused(checkout, finished_run, tmp_path):
    (tmp_path / "file").write_text("")
    result = checkout(
        "clusterloss_tf.extract", finished_run[1], "--out", tmp_path / "file" / "below"
    )
    assert "cannot write" in one_line(result)


def test_missing_gallery_and_tsne_limit_of_one_are_refused(checkout, finished_run, tmp_path):
    _, run = finished_run
    result = checkout("clusterloss_tf/evaluate.py", run, "--gallery", tmp_path / "nowhere")
    assert "has no readable features" in one_line(result)
    assert "--limit is 1: expected 2 or more" in one_line(
        checkout("clusterloss_tf.tsne", run, "--limit", 1)
    )


def test_trunk_of_another_model_is_refused(refused, finished_run, tmp_path):
    _, run = finished_run
    assert "is not a run folder" in refused("--model.trunk", tmp_path)
    reason = refused("--model.trunk", run, "--model.growth", 5)
    assert "is of another model: " in reason and "the config expects" in reason


# ---- damaged files


def test_nan_embeddings_are_refused(checkout, finished_run, tmp_path):
    run = copy_of(finished_run[1], tmp_path)
    with np.load(run / "predictions.npz") as file:
        arrays = dict(file)
    arrays["embeddings"][3, 1] = np.nan
    np.savez(run / "predictions.npz", **arrays)
    assert "embeddings contain NaN or infinity" in one_line(checkout.evaluate(run))


def test_pickle_in_features_is_refused_and_not_executed(checkout, finished_run, tmp_path):
    bomb = PickleBomb(tmp_path / "harm")
    np.save(tmp_path / "features.npy", np.array([[bomb]], dtype=object))
    result = checkout("clusterloss_tf/evaluate.py", finished_run[1], "--gallery", tmp_path)
    assert "has no readable features" in one_line(result)
    assert not bomb.path.exists()
