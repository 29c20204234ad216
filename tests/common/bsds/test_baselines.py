import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from common import bsds
from common.bsds import baselines
from tests.common.bsds.segmentations import halves, write_ground_truth

ROOT = Path(__file__).resolve().parents[3]
SHAPE = (40, 60)


def make_image(column):
    """A dark and a bright half, with a little noise."""
    noise = np.random.default_rng(column).integers(0, 9, (*SHAPE, 3))
    return (halves(column, SHAPE)[..., None] * 180 + 20 + noise).astype(np.uint8)


@pytest.mark.parametrize("name", baselines.METHODS)
def test_method_returns_label_maps(name):
    scales = baselines.METHODS[name](make_image(25))
    assert all(labels.shape == SHAPE and labels.dtype.kind == "i" for labels in scales)
    assert len(np.unique(scales[-1])) <= len(np.unique(scales[0]))


@pytest.mark.parametrize("name", ["kmeans_lab_xy", "felzenszwalb", "felzenszwalb_merged"])
def test_method_separates_two_halves_at_a_scale(name):
    scales = baselines.METHODS[name](make_image(25))
    best = max(bsds.region_scores(labels, [halves(25, SHAPE)])["covering"] for labels in scales)
    assert best > 0.95


def test_methods_are_deterministic():
    for method in baselines.METHODS.values():
        first, second = method(make_image(25)), method(make_image(25))
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def root(tmp_path):
    data = tmp_path / "BSDS500/data"
    for folder in ("images/val", "groundTruth/val"):
        (data / folder).mkdir(parents=True)
    for name, columns in (("1", (20, 25)), ("2", (30, 31))):
        Image.fromarray(make_image(columns[0])).save(data / f"images/val/{name}.jpg")
        maps = [halves(column, SHAPE) + 1 for column in columns]
        write_ground_truth(data / "groundTruth/val", name, maps)
    return tmp_path


def command(root, *argv):
    return subprocess.run(
        [sys.executable, "-m", "common.baselines", "--root", root, "--processes", "1", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_command_prints_rows_of_results_csv(root):
    done = command(root, "--methods", "blank", "humans", "--machine", "a, b")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout), baselines.COLUMNS))
    assert {row["config"] for row in rows} == {"blank", "humans"}
    assert {row["machine"] for row in rows} == {"a, b"} and all(None not in row for row in rows)
    values = {(row["config"], row["metric"]): float(row["value"]) for row in rows}
    blank = np.zeros(SHAPE, int)
    truths = [[halves(column, SHAPE) for column in pair] for pair in ((20, 25), (30, 31))]
    expected = bsds.benchmark([[blank]] * 2, truths)
    for metric, value in expected.items():
        assert values["blank", f"val_{metric}"] == pytest.approx(value, abs=5e-5)
    # 5, then 1 of 60 columns differ
    assert values["humans", "val_covering_ods"] > 0.85


def test_command_refuses_invalid_options_and_files(root, refused):
    for argv, reason in (
        (("--methods", "magic"), "invalid choice: 'magic'"),
        (("--limit", "0"), "--limit is 0: expected 1 or more"),
        (("--split", "vall"), "dataset.split of bsds500 is 'vall'"),
    ):
        assert reason in refused(baselines.main, "--root", root, *argv)
    path = root / "BSDS500/data/groundTruth/val/1.mat"
    scipy.io.savemat(path, {"groundTruth": 1})
    line = refused(baselines.main, "--root", root, "--methods", "blank")
    assert "1.mat is damaged" in line
