"""python -m dti_torch.resize: from a folder of images to small, numbered JPEGs."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import UserError, images
from dti_torch.resize import MAX_SIDE, resize

ROOT = Path(__file__).resolve().parents[2]


def write_image(path, width, height, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height), "white").save(path, **options)


def sizes(folder):
    """(width, height) of each image by name"""
    shapes = {path.name: images.load(path).shape for path in sorted(folder.iterdir())}
    return {name: (width, height) for name, (height, width, _) in shapes.items()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_shorter_side_has_the_size_without_cropping(tmp_path):
    write_image(tmp_path / "in/a.png", 40, 20)
    write_image(tmp_path / "in/b/c.JPG", 300, 600)
    write_image(tmp_path / "in/d.gif", 7, 7, mode="P")
    assert resize(tmp_path / "in", tmp_path / "new/out", 10) == 3
    expected = {"00000.jpg": (20, 10), "00001.jpg": (10, 20), "00002.jpg": (10, 10)}
    assert sizes(tmp_path / "new/out") == expected
    assert names(tmp_path / "new") == ["out"]


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    write_image(tmp_path / "in/a.jpg", 40, 20, exif=exif)
    resize(tmp_path / "in", tmp_path / "out", 10)
    assert sizes(tmp_path / "out") == {"00000.jpg": (10, 20)}


def test_written_image_equals_the_original(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.broadcast_to(ramp[:, None, None], (64, 64, 3))
    images.save_png(tmp_path / "in/a.png", image)
    resize(tmp_path / "in", tmp_path / "out", 64)
    written = images.load(tmp_path / "out/00000.jpg")
    assert np.abs(written.astype(int) - image).max() <= 3  # JPEG of quality 95


def test_bad_files_are_skipped_and_numbers_stay_consecutive(tmp_path, caplog):
    folder = tmp_path / "in"
    write_image(folder / "a.png", 20, 20)
    write_image(folder / "b narrow.png", MAX_SIDE + 1, 1)
    write_image(folder / "z.png", 20, 20)
    (folder / "c.jpg").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "d.png").write_text("not an image")
    (folder / "e.png").touch()
    (folder / "notes.txt").write_text("text")
    (folder / "f.cr2").write_text("raw")
    (folder / "._a.png").write_text("hidden")
    with caplog.at_level(logging.INFO):
        assert resize(folder, tmp_path / "out", 10) == 2
    assert names(tmp_path / "out") == ["00000.jpg", "00001.jpg"]
    for name in ("b narrow.png", "c.jpg", "d.png", "e.png"):
        assert f"skipped {folder / name}: " in caplog.text
    assert f"{folder}: 1 image file is not read: 1 .cr2" in caplog.text
    assert caplog.messages[-1] == f"2 images in {tmp_path / 'out'}, 4 skipped"


def test_output_folder_that_is_not_empty_is_an_error(tmp_path):
    write_image(tmp_path / "in/a.png", 20, 20)
    with pytest.raises(UserError, match="in is not empty"):
        resize(tmp_path / "in", tmp_path / "in", 10)
    assert sizes(tmp_path / "in") == {"a.png": (20, 20)}
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is not empty"):
        resize(tmp_path / "in", tmp_path / "file", 10)


def test_empty_output_folder_inside_the_input_works(tmp_path):
    write_image(tmp_path / "in/a.png", 20, 20)
    (tmp_path / "in/small").mkdir()
    assert resize(tmp_path / "in", tmp_path / "in/small", 10) == 1
    assert names(tmp_path / "in") == ["a.png", "small"]


@pytest.mark.parametrize("size", [0, -1])
def test_size_below_one_is_an_error(tmp_path, size):
    with pytest.raises(UserError, match="expected 1 or more"):
        resize(tmp_path, tmp_path / "out", size)


def test_folder_without_images_is_an_error_and_leaves_no_output(tmp_path):
    for name, content in (("absent", None), ("empty", []), ("bad", ["a.png"])):
        for file in content or []:
            (tmp_path / name).mkdir()
            (tmp_path / name / file).write_text("not an image")
        with pytest.raises(UserError, match=name):
            resize(tmp_path / name, tmp_path / "out", 10)
        assert not (tmp_path / "out").exists()


def test_command_needs_no_torch_and_reports_errors_in_one_line(tmp_path):
    write_image(tmp_path / "in/a.png", 300, 200)
    code = """
import runpy, sys
try:
    runpy.run_module("dti_torch.resize", run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code, tmp_path / "in", tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert sizes(tmp_path / "out") == {"00000.jpg": (192, 128)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
