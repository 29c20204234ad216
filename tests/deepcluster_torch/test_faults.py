"""Invalid input, unreadable images, damaged runs: one-line errors, and nothing is lost."""

import json

import numpy as np
import pytest

from deepcluster_torch.config import Config
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


def of(folder, k=2):
    own = {"dataset.name": "folder", "dataset.path": folder, "dataset.n_images": "null"}
    own |= {"model.n_clusters": k, "model.heads": "[]", "training.n_epochs": 1}
    return [word for key, value in own.items() for word in (f"--{key}", value)]


class TestEnvironment(Environment):
    pass


class TestConfigs(Configs):
    config = Config

    @pytest.fixture(
        params=[
            *NO_CONFIG,
            ("model: {n_cluster: 3}", "no key model.n_cluster; did you mean model.n_clusters"),
            ("model: {n_clusters: many}", "model.n_clusters: expected int"),
            ("model: {mode: v3}", "model.mode: expected one of auto, v1, v2, frozen"),
            ("model: {n_clusters: 0}", "model.n_clusters is 0: expected 1 or more"),
            ("model: {n_clusters: -3}", "model.n_clusters is -3: expected 1 or more"),
            (
                "model: {n_groups: 11}",
                "model.n_groups is 11: expected no more than model.n_clusters",
            ),
            ("model: {heads: [8, 1]}", "model.heads is (8, 1): expected 2 or more each"),
            ("model: {temperature: 0}", "model.temperature is 0.0: expected a number above 0"),
            ("model: {center_crop: 1.5}", "model.center_crop is 1.5: expected a fraction"),
            ("model: {stem_stride: 3}", "model.stem_stride is 3: expected 1, 2 or 4"),
            ("model: {pretrained: true, weights: w.pth}", "expected false with model.weights"),
            ("dataset: {size: 0}", "dataset.size is 0: expected 1 or more"),
            ("dataset: {held_out: 1.0}", "dataset.held_out is 1.0: expected 0 or more, below 1"),
            ("training: {lr: .nan}", "training.lr: expected a finite number"),
            ("training: {lr: -1e-3}", "training.lr is -0.001: expected a number above 0"),
            ("training: {head_lr: 0}", "training.head_lr is 0.0: expected a number above 0"),
            ("training: {batch_size: 1}", "training.batch_size is 1: expected 2 or more"),
            ("training: {n_epochs: 0}", "training.n_epochs is 0: expected 1 or more"),
            (
                "training: {crop_scale: [0.9, 0.2]}",
                "training.crop_scale is [0.9, 0.2]: expected 0 < low <= high <= 1",
            ),
            ("training: {reassign: 0}", "training.reassign is 0.0: expected a number above 0"),
        ]
    )
    def bad_config(self, request):
        return request.param


class TestFolders(Folders):
    of = staticmethod(of)


class TestDistinctImages(DistinctImages):
    with_clusters = ("--model.n_clusters", 5, "--dataset.n_images", "null")


class TestPredictions(Predictions):
    pass


class TestDamaged(Damaged):
    weights, state = "model.safetensors", "state.safetensors"

    @pytest.fixture(
        params=[
            ("width: 4", "width: 8", "is (16, 32), the config expects (16, 64)"),
            ("embedding: 8", "embedding: 9", "the config expects"),
            ("- 8\n  - 6", "- 8\n  - 7", "prototypes.head1 is (6, 8), the config expects (7, 8)"),
        ]
    )
    def change(self, request):
        return request.param


# ---- configuration


def test_more_clusters_than_images_are_refused(refused, folder):
    assert "model.n_clusters is 7, but there are only 6 images" in refused(*of(folder, k=7))
    more = (*of(folder), "--model.heads", "[9]")
    assert "model.heads is 9, but there are only 6 images" in refused(*more)


def test_frozen_without_weights_is_refused(refused):
    assert "set model.weights to a file" in refused("--model.mode", "frozen")


def test_missing_weights_are_refused_by_name(refused, tmp_path):
    assert "nowhere.pth does not exist" in refused("--model.weights", tmp_path / "nowhere.pth")


# ---- images


def test_a_single_image_is_refused(refused, tmp_path):
    write(tmp_path / "one/a.png")
    assert "only 1 image: clustering needs two" in refused(*of(tmp_path / "one", k=1))


@pytest.mark.parametrize("mode", ["v1", "v2"])
def test_equal_images_have_finite_scores(checkout, tmp_path, mode):
    for i in range(9):
        write(tmp_path / f"same/{i}.png")
    result = checkout.train(*of(tmp_path / "same", k=3), "--model.mode", mode)
    assert result.code == 0, result.err
    assert np.isfinite(checkout.score(result.run)["distance"])


@pytest.mark.parametrize(("n", "batch_size"), [(5, 4), (5, 2), (2, 128)])
@pytest.mark.parametrize("mode", ["v1", "v2"])
def test_batch_size_need_not_divide_the_images(checkout, n, batch_size, mode):
    sizes = ["--dataset.n_images", n, "--training.batch_size", batch_size, "--model.heads", "[]"]
    result = checkout.train(*sizes, "--model.n_clusters", 2, "--model.mode", mode)
    assert result.code == 0, result.err
    assert checkout.score(result.run)["n"] == n


def test_one_cluster_is_enough(checkout):
    run = checkout.train("--model.n_clusters", 1, "--training.n_epochs", 1).run
    assert checkout.score(run)["n_empty_clusters"] == 0


# ---- the run


def test_nan_loss_stops_with_an_error(checkout):
    result = checkout.train("--training.lr", 1e30)
    assert "became" in one_line(result) and "lower training.lr" in result.err
    assert json.loads((result.run / "meta.json").read_text())["status"] == "failed"


def test_diverged_run_keeps_its_last_good_checkpoint(checkout):
    run = checkout.train(kill_at="4:SIGTERM").run
    change_config(run, "lr: 0.05", "lr: 1.0e+300")
    assert "became" in one_line(checkout.resume(run))
    assert [path.name for path in run.glob("checkpoints/*")] == ["000000004"]
    assert checkout.pred(run).code == 0


# ---- checkpoints of other configs


def test_another_number_of_clusters_is_refused_with_the_difference(
    checkout, finished_run, tmp_path
):
    run = copy_of(finished_run[1], tmp_path)
    change_config(run, "n_clusters: 4", "n_clusters: 5")
    assert "it has 4 clusters, the config expects 5" in one_line(checkout.pred(run))
