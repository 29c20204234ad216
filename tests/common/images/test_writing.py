import json
import sys

import numpy as np
import pytest
from PIL import Image

from common import UserError, images
from tests.image_files import COLOR, GRAY


def test_write_captions_keeps_the_order(tmp_path):
    images.write_captions(tmp_path / "new", {"b.png": ("B", "First."), "a.png": ("A", "Second.")})
    captions = json.loads((tmp_path / "new" / "captions.json").read_text())
    assert list(captions.items()) == [
        ("b.png", {"title": "B", "caption": "First."}),
        ("a.png", {"title": "A", "caption": "Second."}),
    ]


def test_save_gif_shows_the_last_frame_longer(tmp_path):
    images.save_gif(tmp_path / "new" / "a.gif", [GRAY, 255 - GRAY, GRAY], seconds=0.1)
    with Image.open(tmp_path / "new" / "a.gif") as gif:
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            gif.load()
            durations.append(gif.info["duration"])
    assert durations == [100, 100, 1100]


def test_save_png_is_lossless(tmp_path):
    images.save_png(tmp_path / "new" / "a.png", COLOR)
    assert np.array_equal(images.load(tmp_path / "new" / "a.png"), COLOR)


def test_save_label_map_keeps_16_bits(tmp_path):
    labels = np.array([[0, 255], [256, 65535]])
    images.save_label_map(tmp_path / "new" / "a.png", labels)
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert np.array_equal(np.asarray(image), labels)


def test_save_gif_of_rows_pads_frames_to_one_size(tmp_path):
    small, large = np.zeros((2, 2), np.uint8), np.zeros((5, 3), np.uint8)
    images.save_gif_of_rows(tmp_path / "a.gif", [[small, small], [large, small]])
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size) == (2, (3 + 4 + 2, 5))
        first = np.asarray(gif.convert("L"))
    assert (first[:2, :2] == 0).all() and (first[2:] == 255).all()


def test_save_mp4_writes_or_names_the_missing_package(tmp_path, monkeypatch):
    images.save_mp4(tmp_path / "a.mp4", [np.zeros((33, 32))] * 3)
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match="imageio-ffmpeg"):
        images.save_mp4(tmp_path / "b.mp4", [GRAY])
