import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from common import bsds
from common.bsds import folder_scores, hierarchy, label_maps
from common.datasets import download
from tests import tiff_files
from tests.common.bsds.segmentations import cell, halves, write_ground_truth
from tests.entry_scripts import PickleBomb

ROOT = Path(__file__).resolve().parents[3]
SHAPE = (20, 30)


def command(*argv):
    done = subprocess.run(
        [sys.executable, "-m", "common.bsds", "--processes", "1", *map(str, argv)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def gt(tmp_path):
    for name, columns in (("a", (10, 12)), ("b", (15,)), ("c d", (20, 5, 7))):
        maps = [halves(column, SHAPE) + 1 for column in columns]
        write_ground_truth(tmp_path / "gt", name, maps)
    return tmp_path / "gt"


SCALES = [halves(column, SHAPE) for column in (0, 11, 15)]
TRUTHS = [
    [halves(column, SHAPE) for column in columns] for columns in ((10, 12), (15,), (20, 5, 7))
]


@pytest.fixture
def pred(tmp_path):
    folder = tmp_path / "pred"
    folder.mkdir()
    return folder


def save(pred, name, kind, scales):
    if kind == "mat":
        scipy.io.savemat(pred / f"{name}.mat", {"segs": cell([labels + 1 for labels in scales])})
    elif kind == "doubles":
        scales = cell([labels + 1.0 for labels in scales])
        scipy.io.savemat(pred / f"{name}.mat", {"segs": scales.T})
    elif kind == "npy":
        np.save(pred / f"{name}.npy", np.stack(scales))
    else:
        Image.fromarray(scales[0].astype(np.uint16 if kind == "png16" else np.uint8)).save(
            pred / f"{name}.png"
        )


def test_all_file_formats_give_the_scores_of_benchmark(gt, pred, tmp_path):
    for name, kind in (("a", "mat"), ("b", "npy"), ("c d", "doubles")):
        save(pred, name, kind, SCALES)
    code, out, log = command("--pred", pred, "--gt", gt, "--json", tmp_path / "new/scores.json")
    assert code == 0, log
    assert out == f"{tmp_path / 'new/scores.json'}\n"
    scores = json.loads((tmp_path / "new/scores.json").read_text())
    expected = bsds.benchmark([SCALES] * 3, TRUTHS)
    assert {key: scores[key] for key in expected} == pytest.approx(expected)
    assert (scores["n"], scores["n_scales"], len(scores["images"])) == (3, 3, 3)


def test_png_is_one_scale_and_two_processes_agree(gt, pred, tmp_path):
    for name, kind in (("a", "png"), ("b", "png16"), ("c d", "png")):
        save(pred, name, kind, SCALES[1:])
    argv = ("--pred", pred, "--gt", gt, "--json", tmp_path / "scores.json", "--processes", 2)
    code, _, log = command(*argv)
    assert code == 0, log
    scores = json.loads((tmp_path / "scores.json").read_text())
    expected = bsds.benchmark([SCALES[1:2]] * 3, TRUTHS)
    assert {key: scores[key] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_images_of_segments_are_upright(pred, name, orientation):
    stored = np.arange(6, dtype=np.uint16).reshape(2, 3) * 300
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if name == "a.tif" else {"exif": exif}
    Image.fromarray(stored).save(pred / name, **options)
    expected = tiff_files.upright(stored, orientation)
    (labels,) = label_maps.prediction(pred / name, expected.shape, 9).labels
    assert np.array_equal(labels, expected)


def test_contour_map_is_cut_at_thresholds(gt, pred, tmp_path):
    features = halves(11, SHAPE)[..., None] * 0.7
    merged = hierarchy.merge(halves(11, SHAPE), features, size_power=0)  # merges at 0.49
    scipy.io.savemat(pred / "a.mat", {"ucm2": merged.ucm()})
    np.save(pred / "b.npy", merged.ucm())
    argv = ("--pred", pred, "--gt", gt, "--json", tmp_path / "scores.json", "--partial")
    code, _, log = command(*argv, "--thresholds", 3)
    assert code == 0 and "1 images of --gt have no segmentation" in log
    scores = json.loads((tmp_path / "scores.json").read_text())
    stack = [SCALES[1], SCALES[0], SCALES[0]]  # at 0.25, 0.5 and 0.75
    expected = bsds.benchmark([stack] * 2, TRUTHS[:2])
    assert {key: scores[key] for key in expected} == pytest.approx(expected)


def test_humans_are_scored_against_the_others(gt, tmp_path):
    (gt / "b.mat").unlink()  # has one annotator only
    code, _, log = command("--humans", "--gt", gt, "--json", tmp_path / "scores.json")
    assert code == 0, log
    scores = json.loads((tmp_path / "scores.json").read_text())
    pairs = [(maps, i) for maps in (TRUTHS[0], TRUTHS[2]) for i in range(len(maps))]
    expected = bsds.benchmark(
        [[maps[i]] for maps, i in pairs], [maps[:i] + maps[i + 1 :] for maps, i in pairs]
    )
    assert {key: scores[key] for key in expected} == pytest.approx(expected)


def damage(kind, gt, pred, tmp_path):
    target = pred / "b.npy"
    if kind == "cut":
        target.write_bytes(target.read_bytes()[:300])
    elif kind == "pickle":
        np.save(target, np.array([PickleBomb(tmp_path / "harm")], object))
    elif kind == "header":  # claims 8 TB, followed by 16 bytes
        with open(target, "wb") as file:
            shape = {"descr": "<i8", "fortran_order": False, "shape": (10**6, 10**6)}
            np.lib.format.write_array_header_1_0(file, shape)
            file.write(bytes(16))
    elif kind == "shape":
        np.save(target, np.zeros((3, 4, 5), int))
    elif kind == "fractions":
        np.save(target, np.full((3, *SHAPE), 0.5))
    elif kind == "range":
        np.save(target, np.full((41, 61), 7.5))
    elif kind == "scales":
        np.save(target, np.stack(SCALES[:2]))
    elif kind == "twice":
        save(pred, "b", "png", SCALES)
    elif kind == "missing":
        target.unlink()
    elif kind == "color":
        target.unlink()
        Image.new("RGB", SHAPE[::-1]).save(pred / "b.png")
    elif kind == "7.3":
        target.unlink()
        (pred / "b.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(600))
    elif kind == "keys":
        target.unlink()
        scipy.io.savemat(pred / "b.mat", {"labels": SCALES[0]})
    elif kind == "no ground truth":
        scipy.io.savemat(gt / "b.mat", {"other": 1})
    else:
        for path in pred.iterdir():
            path.unlink()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cut", "b.npy is damaged or of another format"),
        ("pickle", "b.npy is damaged or of another format"),
        ("header", "b.npy is damaged or of another format"),
        ("shape", r"labels \(4, 5\), ground truth \(20, 30\)"),
        ("fractions", "expected labels or a contour map"),
        ("range", "a contour map with values outside 0 to 1"),
        ("scales", "b.npy 2: expected the same number for all images"),
        ("twice", "b.npy and b.png: keep one"),
        ("missing", "2 of the 3 images of --gt, not of b: add them, or skip them"),
        ("color", "mode RGB, expected one label per pixel"),
        ("7.3", "MATLAB 7.3, expected save"),
        ("keys", "neither segs nor ucm2"),
        ("no ground truth", "gt/b.mat is damaged or of another format"),
        ("empty", "has no .mat or .npy or .png"),
    ],
)
def test_invalid_files_are_refused_in_one_line(kind, reason, gt, pred, tmp_path, refused):
    for name in ("a", "b", "c d"):
        save(pred, name, "npy", SCALES)
    damage(kind, gt, pred, tmp_path)
    out = tmp_path / "scores.json"
    line = refused(folder_scores.main, "--pred", pred, "--gt", gt, "--json", out)
    assert reason.replace("\\", "") in line
    assert not out.exists() and not (tmp_path / "harm").exists()


def test_options_are_checked_before_reading(gt, pred, tmp_path, refused):
    def error(*argv):
        return refused(folder_scores.main, *argv)

    out = tmp_path / "scores.json"
    assert "required: --gt" in error("--pred", pred, "--json", out)
    assert "--pred --humans" in error("--gt", gt, "--json", out)
    assert "no option --gtt; did you mean --gt" in error(
        "--gtt", "x", "--humans", "--gt", gt, "--json", out
    )
    assert f"{tmp_path / 'none'} does not exist" in error(
        "--pred", tmp_path / "none", "--gt", gt, "--json", out
    )
    assert "is a folder" in error("--humans", "--gt", gt, "--json", tmp_path)
    assert "b.mat has one annotator" in error("--humans", "--gt", gt, "--json", out)
    assert "--thresholds is 0" in error("--humans", "--gt", gt, "--json", out, "--thresholds", 0)


def test_official_example_has_the_official_scores(tmp_path):
    # BSR/bench/data may not be redistributed; the numbers are those of the official tool
    data = download.data_root() / "BSR/bench/data"
    if not (data / "segs").is_dir():
        pytest.skip("BSR/bench/data is not below DATA_ROOT")
    out = tmp_path / "scores.json"
    code, _, log = command("--pred", data / "segs", "--gt", data / "groundTruth", "--json", out)
    assert code == 0, log
    scores = json.loads(out.read_text())
    assert scores["covering_ods"] == pytest.approx(0.654023, abs=5e-6)
    assert scores["covering_ois"] == pytest.approx(0.725074, abs=5e-6)
    assert scores["covering_best"] == pytest.approx(0.749811, abs=5e-6)
    assert (scores["pri_ods"], scores["pri_ois"]) == pytest.approx((0.826926, 0.898299), abs=5e-6)
    assert (scores["vi_ods"], scores["vi_ois"]) == pytest.approx((1.36877, 1.11563), abs=5e-5)
    assert (scores["f_ods"], scores["f_ois"]) == pytest.approx((0.7045, 0.7084), abs=3e-3)
