"""Hard pictures, batches, rates and files: what is left of the faults that every paper survives."""

import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.entry_scripts import PickleBomb, change_config, one_line

BSDS = ("--dataset.name", "bsds500", "--dataset.path", "null", "--dataset.split", "val")


def test_the_command_line_wins_over_a_file_with_byte_order_mark_and_exponent(checkout, tmp_path):
    text = (
        "\ufefftraining:\r\n  lr: 1e-3\r\n  n_epochs: 9\r\n  crops: 1\r\ndataset: {n_images: 1}\r\n"
    )
    text += "model: {width: 2, depth: 1}\r\n"
    (tmp_path / "windows.yml").write_bytes(text.encode())
    options = ["--config", tmp_path / "windows.yml", "--training.n_epochs", 1]
    answer = checkout("unsup_seg_torch/train.py", *options)
    assert answer.code == 0, answer.err
    text = (answer.run / "config.yml").read_text()
    assert "n_epochs: 1\n" in text and "lr: 0.001\n" in text and "crops: 1\n" in text


def test_a_decompression_bomb_is_refused_by_name(refused, tmp_path):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)  # 10 GB once decoded
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    (tmp_path / "bomb.png").write_bytes(start + chunk(b"IDAT", zlib.compress(bytes(1000))))
    reason = refused("--dataset.path", tmp_path / "bomb.png")
    assert "bomb.png" in reason and "million pixels" in reason


def test_one_picture_is_learned_from_and_segmented(checkout, photos):
    answer = checkout.train("--dataset.path", photos / "temple.png", "--training.n_epochs", 1)
    assert answer.code == 0, answer.err
    assert checkout.score(answer.run)["n"] == 1
    # its pictures lie in images itself, since there is no other
    assert (answer.run / "images/overlay.png").exists()


def test_equal_pictures_end_in_finite_scores(checkout, people, tmp_path):
    root = shutil.copytree(people, tmp_path / "gray")
    for path in (root / "BSDS500/data/images/val").iterdir():
        with Image.open(path) as image:
            Image.new("RGB", image.size, (90, 90, 90)).save(path)
    answer = checkout.train(*BSDS, "--dataset.root", root, "--training.n_epochs", 1)
    assert answer.code == 0, answer.err
    scores = checkout.score(answer.run)  # JSON with NaN is refused
    # one region: half of each picture's pixels overlap by half
    assert scores["covering_ods"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("batch_size", [11, 50])  # a last batch of one, a batch too large
def test_batches_need_not_divide_the_crops(checkout, batch_size):
    answer = checkout.train("--training.batch_size", batch_size, "--training.n_epochs", 1)
    assert answer.code == 0, answer.err


def test_a_run_that_diverges_keeps_the_last_good_checkpoint(checkout):
    run = checkout.train(kill_at="6:SIGTERM").run
    kept = sorted(path.name for path in run.glob("checkpoints/*"))
    change_config(run, "lr: 0.01", "lr: 1.0e+30")
    answer = checkout.resume(run)
    assert "became" in one_line(answer) and "at step" in answer.err
    assert sorted(path.name for path in run.glob("checkpoints/*")) == kept != []
    assert checkout.pred(run).code == 0


@pytest.fixture
def scored(checkout, people, tmp_path):
    """A run on pictures with truths that are its own to damage, predicted."""
    root = shutil.copytree(people, tmp_path / "root")
    run = checkout.train(*BSDS, "--dataset.root", root, "--training.n_epochs", 1).run
    assert checkout.pred(run).code == 0
    return run, root


def test_truths_and_segments_that_are_damaged_are_refused_by_name(checkout, scored, tmp_path):
    run, root = scored
    scales, truth = run / "scales/temple.npy", root / "BSDS500/data/groundTruth/val/temple.mat"
    finished_run = scales.read_bytes()
    os.truncate(scales, 150)
    assert "temple.npy" in one_line(checkout.evaluate(run))
    np.save(scales, np.zeros((2, 3, 3), np.uint16))
    assert "temple.npy" in one_line(checkout.evaluate(run))
    bomb = PickleBomb(tmp_path / "harm")
    np.save(scales, np.array([bomb], dtype=object))
    assert "temple.npy" in one_line(checkout.evaluate(run)) and not bomb.path.exists()
    scales.write_bytes(finished_run)
    savemat(truth, {"other": 1})
    assert "temple.mat" in one_line(checkout.evaluate(run))
    truth.unlink()
    assert "lacks" in one_line(checkout.evaluate(run)) and "temple.mat" in one_line(
        checkout.evaluate(run)
    )
