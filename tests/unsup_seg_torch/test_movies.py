"""Films as folders of frames."""

import sys

import numpy as np
import pytest
from PIL import Image

from common import UserError, images
from unsup_seg_torch import movies


@pytest.fixture
def film(tmp_path):
    """Seven gray frames, from dark to light."""
    frames = [np.full((6, 8, 3), 30 * i, np.uint8) for i in range(7)]
    images.save_gif(tmp_path / "film.gif", frames)
    return tmp_path / "film.gif"


def grays(folder):
    return [int(images.load(path)[0, 0, 0]) for path in sorted(folder.iterdir())]


def test_frames_are_spread_over_the_film_in_time_order(film, tmp_path):
    assert movies.is_movie(film)
    folder = movies.unpack(film, tmp_path / "frames", 4)
    assert [path.name for path in sorted(folder.iterdir())] == [
        f"frame_0000{i}.png" for i in (1, 2, 3, 4)
    ]
    assert grays(folder) == pytest.approx([0, 60, 120, 180], abs=1)
    movies.unpack(film, folder, 99)  # what was there before does not stay
    assert len(grays(folder)) == 7
    movies.unpack(film, folder, 2)
    assert grays(folder) == pytest.approx([0, 180], abs=1)


def test_a_picture_is_no_film(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "one.gif")
    (tmp_path / "text.gif").write_text("no picture")
    for name in ("one.gif", "text.gif", "absent.gif", "a.png"):
        assert not movies.is_movie(tmp_path / name)
    assert movies.is_movie(tmp_path / "A.MP4")


def test_a_film_that_is_absent_or_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="a.mp4 is absent, expected a film"):
        movies.unpack(tmp_path / "a.mp4", tmp_path / "frames", 3)
    assert not (tmp_path / "frames").exists()


def test_without_a_reader_a_film_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    (tmp_path / "a.mp4").write_bytes(b"film")
    with pytest.raises(UserError, match="imageio-ffmpeg, which reads films, is not installed: pip"):
        movies.unpack(tmp_path / "a.mp4", tmp_path / "frames", 3)


def test_films_of_ffmpeg_are_read(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    frames = [np.full((48, 64, 3), 30 * i, np.uint8) for i in range(7)]
    images.save_mp4(tmp_path / "film.mp4", frames)
    folder = movies.unpack(tmp_path / "film.mp4", tmp_path / "frames", 3)
    assert grays(folder) == pytest.approx([0, 90, 180], abs=8)  # colours are compressed
    assert images.load(folder / "frame_00001.png").shape == (48, 64, 3)
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(UserError, match="text.mp4 is no film that ffmpeg can read"):
        movies.unpack(tmp_path / "text.mp4", tmp_path / "frames", 3)
