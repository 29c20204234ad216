"""The benchmark and the grid on synthetic images."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from common import UserError, images
from dfc_tf import benchmark, grid

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bsds(tmp_path):
    """Two images of two halves, with two identical annotations each."""
    for i in range(2):
        segments = np.ones((24, 30), np.uint16)
        segments[:, 12 + 4 * i :] = 2
        pixels = np.where(segments[..., None] == 1, (220, 60, 30), (30, 60, 200)).astype(np.uint8)
        for kind in ("images", "groundTruth"):
            (tmp_path / f"BSDS500/data/{kind}/val").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"BSDS500/data/images/val/{i}.jpg", quality=95)
        cells = np.empty((1, 2), object)
        for k in range(2):
            cells[0, k] = {"Segmentation": segments}
        savemat(tmp_path / f"BSDS500/data/groundTruth/val/{i}.mat", {"groundTruth": cells})
    return tmp_path


def evaluate(bsds, out, *options):
    command = [sys.executable, "-m", "dfc_tf.evaluate", "--benchmark", "bsds500", "--split", "val"]
    command += ["--root", bsds, "--out", out, "--processes", "1", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_benchmark_scores_all_methods_and_resumes(bsds, tmp_path):
    out = tmp_path / "out"
    completed = evaluate(bsds, out)
    assert (completed.returncode, completed.stdout) == (0, f"{out}\n"), completed.stderr
    with open(out / "table.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == [*benchmark.BASELINES, "fast"]
    # blank overlaps halves of 12 and 18, 16 and 14 of 30 columns: on average a half
    assert float(rows["blank"]["all"]) == pytest.approx(0.5, abs=1e-4)
    assert float(rows["k-means 2"]["mean"]) > 0.95
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    assert len(before) == 6 * 2 + 1  # and the config

    (out / "fast/1.json").unlink()
    assert evaluate(bsds, out).returncode == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {"1.json", "config.json"}


@pytest.mark.slow
def test_benchmark_refuses_results_of_another_config(bsds, tmp_path):
    out = tmp_path / "out"
    (out / "fast").mkdir(parents=True)
    (out / "fast/config.json").write_text("{}")
    completed = evaluate(bsds, out)
    assert completed.returncode == 2 and completed.stdout == ""
    assert completed.stderr.count("error: ") == 1 and "of another config" in completed.stderr


def test_baselines_separate_two_halves():
    image = np.zeros((20, 30, 3), np.float32)
    image[:, 10:] = 0.9
    for name in ("k-means 2", "Felzenszwalb 500"):
        labels = benchmark.BASELINES[name](image)
        left, right = labels[:, :9], labels[:, 12:]  # Felzenszwalb blurs the edge between them
        assert len(np.unique(left)) == len(np.unique(right)) == 1 and left[0, 0] != right[0, 0]


@pytest.mark.slow
def test_grid_writes_sheet_and_table_and_resumes(tmp_path, monkeypatch, capsys):
    argv = ["grid", "--out", str(tmp_path), "--max-side", "24", "--iterations", "3"]
    monkeypatch.setattr(sys, "argv", [*argv, "--only", "sgd_mu_5", "adam_0.1", "p_100_q_32"])
    grid.main()
    assert capsys.readouterr().out == f"{tmp_path}\n"
    with open(tmp_path / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["experiment"] for row in rows] == ["sgd_mu_5", "adam_0.1", "p_100_q_32"]
    assert all(int(row["iterations"]) == 3 and int(row["labels"]) > 1 for row in rows)
    sheet = images.load(tmp_path / "sheet.png")  # 24x16 pixels enlarged ten times, below captions
    assert sheet.shape == (22 + 160, 4 * 240 + 3 * 2, 3)
    assert all(sheet[:22, i * 242 : i * 242 + 240].max() > 0.9 for i in range(4))
    before = (tmp_path / "sgd_mu_5.npz").stat().st_mtime_ns
    grid.main()
    assert (tmp_path / "sgd_mu_5.npz").stat().st_mtime_ns == before


def test_grid_refuses_several_images(tmp_path, monkeypatch):
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(sys, "argv", ["grid", str(tmp_path)])
    with pytest.raises(UserError, match="has 2 images: expected one image"):
        grid.main()
