"""Invalid configs, unreadable images, damaged and malicious files: one-line errors."""

import h5py
import numpy as np
import pytest
from PIL import Image

from dfc_tf.config import Config
from tests.entry_scripts import PickleBomb, copy_of, one_line, replace
from tests.every_paper import NO_CONFIG, Configs, Damaged, Environment, Folders, Predictions
from tests.image_files import write


class TestEnvironment(Environment):
    quick = ("--training.n_iterations", 2)


class TestConfigs(Configs):
    config = Config

    @pytest.fixture(
        params=[
            *NO_CONFIG,
            ("model: {n_cluster: 3}", "no key model.n_cluster; did you mean model.n_clusters"),
            ("model: {width: many}", "model.width: expected int"),
            ("model: {init: zeros}", "model.init: expected one of torch, keras"),
            ("model: {n_clusters: 0}", "model.n_clusters is 0: expected 2 or more"),
            ("model: {n_clusters: 1}", "model.n_clusters is 1: expected 2 or more"),
            ("model: {n_blocks: 0}", "model.n_blocks is 0: expected 1 or more"),
            ("model: {n_labels: 0}", "model.n_labels is 0: expected 1 or more"),
            ("model: {superpixels: -1}", "model.superpixels is -1: expected 0 or more"),
            ("model: {min_area: 1.5}", "model.min_area is 1.5: expected 0 or more, below 1"),
            ("dataset: {mode: all}", "dataset.mode: expected one of each, frames, reference"),
            ("dataset: {max_side: 0}", "dataset.max_side is 0: expected 1 or more"),
            ("dataset: {max_bad: 2}", "dataset.max_bad is 2.0: expected a fraction"),
            ("training: {lr: .nan}", "training.lr: expected a finite number"),
            ("training: {lr: .inf}", "training.lr: expected a finite number"),
            ("training: {lr: -1e-3}", "training.lr is -0.001: expected a number above 0"),
            ("training: {mu: -1}", "training.mu is -1.0: expected 0 or more"),
            ("training: {momentum: 1}", "training.momentum is 1.0: expected 0 or more, below 1"),
            ("training: {n_iterations: 0}", "training.n_iterations is 0: expected 1 or more"),
            ("training: {check_interval: 0}", "training.check_interval is 0: expected 1 or more"),
            ("training: {batch_size: 0}", "training.batch_size is 0: expected 1 or more"),
            ("training: {max_side: 0}", "training.max_side is 0: expected 1 or more"),
            ("training: {scribble_weight: -1}", "training.scribble_weight is -1.0: expected 0 or"),
        ]
    )
    def bad_config(self, request):
        return request.param


class TestFolders(Folders):
    of_one_size = ()

    def of(self, folder):
        return "--dataset.path", folder, "--training.n_iterations", 2


class TestPredictions(Predictions):
    predictions = "predictions.csv"


class TestDamaged(Damaged):
    option = ("--model.n_clusters", 12)
    others = {"a": np.zeros(3), "kernel_0": np.zeros((3, 3, 3, 12))}  # which pred.py requires

    def new_images(self, tmp_path):
        return "--input", write(tmp_path / "new.png")

    @pytest.fixture(
        params=[
            ("width: 12", "width: 13", "bias_0 is (12,), the config expects (13,)"),
            ("n_clusters: 12", "n_clusters: 9", "kernel_2 is (1, 1, 12, 12), the config expects"),
            ("n_blocks: 2", "n_blocks: 3", "bias_2 is absent, the config expects (12,)"),
        ]
    )
    def change(self, request):
        return request.param


# ---- configuration


def test_command_line_overrides_file_with_byte_order_mark(checkout, tmp_path):
    text = "\ufefftraining:\r\n  lr: 1e-2\r\n  n_iterations: 9\r\n  check_interval: 1\r\n"
    text += "model: {width: 8}\r\ndataset: {max_side: 20}\r\n"
    (tmp_path / "windows.yml").write_bytes(text.encode())
    options = ["--config", tmp_path / "windows.yml", "--training.n_iterations", 2]
    training = checkout("dfc_tf/train.py", *options)
    assert training.code == 0, training.err
    assert len((training.run / "metrics.jsonl").read_text().splitlines()) == 2


# ---- images


def test_unreadable_image_is_refused(refused, tmp_path):
    (tmp_path / "text.png").write_text("text")
    assert "text.png: not a" in refused("--dataset.path", tmp_path / "text.png")
    (tmp_path / "zero.tif").write_bytes(b"")
    assert "zero.tif: empty file" in refused("--dataset.path", tmp_path / "zero.tif")
    (tmp_path / "text.npy").write_text("text")
    assert "text.npy: " in refused("--dataset.path", tmp_path / "text.npy")


def test_npy_with_a_huge_shape_is_refused_before_allocation(refused, tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header += b" " * (117 - len(header)) + b"\n"
    (tmp_path / "bomb.npy").write_bytes(b"\x93NUMPY\x01\x00" + b"\x76\x00" + header + bytes(64))
    assert "bomb.npy: " in refused("--dataset.path", tmp_path / "bomb.npy")


def test_pickle_in_npy_is_not_executed(refused, tmp_path):
    bomb = PickleBomb(tmp_path / "harm")
    np.save(tmp_path / "bad.npy", np.array([[bomb]], dtype=object))
    assert "bad.npy: " in refused("--dataset.path", tmp_path / "bad.npy")
    assert not bomb.path.exists()


def test_images_of_different_channels_are_refused(checkout, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((9, 9, 5)))
    write(tmp_path / "b.png")
    training = checkout.train("--dataset.path", tmp_path, "--training.n_iterations", 2)
    assert "b.png has 3 channels, the first image 5" in one_line(training)


def test_image_of_one_color_has_finite_scores(checkout, tmp_path):
    Image.new("RGB", (20, 15), (90, 90, 90)).save(tmp_path / "flat.png")
    training = checkout.train("--dataset.path", tmp_path / "flat.png")
    assert training.code == 0, training.err
    assert checkout.score(training.run)["n_labels"] >= 1


def test_invalid_scribbles_are_refused(refused, tmp_path):
    path = write(tmp_path / "a.png")
    Image.new("L", (9, 8), 255).save(tmp_path / "large.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "bare.png")
    options = ["--dataset.path", path, "--dataset.scribbles"]
    assert "expected the same size" in refused(*options, tmp_path / "large.png")
    assert "marks nothing" in refused(*options, tmp_path / "bare.png")
    assert "cannot be read" in refused(*options, tmp_path / "absent.png")
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8) // 4
    mask[0] = 255
    Image.fromarray(mask).save(tmp_path / "many.png")
    assert "expected at least 14, the number of scribbled classes" in refused(
        *options, tmp_path / "many.png"
    )


# ---- the run


def test_nan_loss_is_refused_with_its_step(checkout):
    assert "became NaN or infinite at step" in one_line(checkout.train("--training.lr", 1e30))


def test_diverging_run_keeps_its_last_good_checkpoint(checkout):
    run = checkout.train(kill_at="3:SIGTERM").run
    config = run / "config.yml"
    config.write_text(config.read_text().replace("lr: 0.1", "lr: 1.0e+30"))
    assert "became NaN or infinite at step" in one_line(checkout.resume(run))
    assert [path.name for path in run.glob("checkpoints/*")] == ["000000006"]


def test_new_images_of_other_channels_are_refused(checkout, finished_run, tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((4, 4, 7)))
    prediction = checkout.pred(finished_run[1], "--input", tmp_path / "cube.npy")
    assert "has 7 channels, the network was trained on 3" in one_line(prediction)


# ---- damaged run folders


def test_pred_of_unfinished_training_is_refused(checkout, stopped_run):
    assert "train.py --resume" in one_line(checkout.pred(stopped_run))


def test_pickle_in_labels_is_not_executed(checkout, finished_run, tmp_path):
    run, bomb = copy_of(finished_run[1], tmp_path), PickleBomb(tmp_path / "harm")
    np.savez(run / "labels/coffee.npz", labels=np.array([bomb], dtype=object))
    assert "no readable labels of coffee" in one_line(checkout.pred(run))
    assert not bomb.path.exists()


def test_checkpoint_of_hdf5_groups_is_refused(checkout, stopped_run, tmp_path):
    run = copy_of(stopped_run, tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_group("kernel_0")
    replace(run, "model.weights.h5", (tmp_path / "other.h5").read_bytes())
    assert "is not a readable checkpoint" in one_line(checkout.resume(run))
