"""Pictures, folders, animations and films as frames."""

import os
import sys

import numpy as np
import pytest

from common import UserError, images
from unsup_seg_torch import media


def gray(i, size=(12, 16)):
    return np.full((*size, 3), 30 * i, np.uint8)


@pytest.fixture
def gif(tmp_path):
    """Seven gray frames, from dark to light."""
    images.save_gif(tmp_path / "film.gif", [gray(i) for i in range(7)])
    return tmp_path / "film.gif"


def grays(folder):
    return [int(images.load(path)[0, 0, 0]) for path in sorted(folder.iterdir())]


def test_a_picture_is_one_frame_and_a_folder_has_them_by_name(tmp_path):
    for i in (2, 0, 1):
        images.save_png(tmp_path / f"{i}.png", gray(i))
    (one,) = media.frames(tmp_path / "1.png", 10)
    assert one.name == "1" and (one.image == 30).all()
    assert [each.name for each in media.frames(tmp_path, 10)] == ["0", "1", "2"]
    assert len(list(media.frames(tmp_path, 2))) == 2


def test_a_picture_is_no_film(tmp_path):
    images.save_gif(tmp_path / "one.gif", [gray(1)])
    (tmp_path / "text.gif").write_text("no picture")
    for name in ("one.gif", "text.gif", "absent.gif", "a.png", "."):
        assert not media.is_film(tmp_path / name)
    assert media.is_film(tmp_path / "A.MP4")


def test_a_gif_has_its_first_frames(gif):
    assert media.is_film(gif)
    found = list(media.frames(gif, 3))
    assert [int(each.image[0, 0, 0]) for each in found] == pytest.approx([0, 30, 60], abs=1)
    assert [each.name for each in found] == ["00000", "00001", "00002"]
    assert len(list(media.frames(gif, 10))) == 7
    os.truncate(gif, 40)
    with pytest.raises(UserError, match="film.gif"):
        list(media.frames(gif, 3))


def test_a_film_that_breaks_off_has_the_frames_before(gif, caplog):
    os.truncate(gif, gif.stat().st_size - 30)
    n = len(list(media.frames(gif, 10)))
    assert 1 <= n < 7 and f"film.gif ends after {n} frames" in caplog.text


def test_unpacked_frames_are_spread_over_the_film_in_time_order(gif, tmp_path):
    folder = media.unpack(gif, tmp_path / "frames", 4)
    assert [path.name for path in sorted(folder.iterdir())] == [
        f"frame_0000{i}.png" for i in (1, 2, 3, 4)
    ]
    assert grays(folder) == pytest.approx([0, 60, 120, 180], abs=1)
    media.unpack(gif, folder, 99)  # what was there before does not stay
    assert len(grays(folder)) == 7
    media.unpack(gif, folder, 2)
    assert grays(folder) == pytest.approx([0, 180], abs=1)


def test_what_cannot_be_read_is_skipped_but_not_if_it_is_all(tmp_path):
    for i in range(3):
        images.save_png(tmp_path / f"{i}.png", gray(i))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="1 of 4 images cannot be read"):
        list(media.frames(tmp_path, 10))
    assert len(list(media.frames(tmp_path, 10, max_bad=0.5))) == 3
    with pytest.raises(UserError, match="text.png: not a picture"):
        list(media.frames(tmp_path / "text.png", 10))


def test_a_film_that_is_absent_is_refused(tmp_path):
    with pytest.raises(UserError, match="a.mp4 is absent, expected a film"):
        media.unpack(tmp_path / "a.mp4", tmp_path / "frames", 3)
    assert not (tmp_path / "frames").exists()


def test_without_a_reader_a_film_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    (tmp_path / "a.mp4").write_bytes(b"film")
    with pytest.raises(UserError, match="imageio-ffmpeg, which reads films, is not installed: pip"):
        list(media.frames(tmp_path / "a.mp4", 3))


def test_films_are_read_as_they_were_written(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    film = tmp_path / "film.mp4"
    images.save_mp4(film, [gray(i, (48, 64)) for i in range(7)])
    first = list(media.frames(film, 3))  # colours are compressed
    assert [int(each.image.mean()) for each in first] == pytest.approx([0, 30, 60], abs=8)
    assert first[0].image.shape == (48, 64, 3)
    folder = media.unpack(film, tmp_path / "frames", 3)
    assert grays(folder) == pytest.approx([0, 90, 180], abs=8)
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(UserError, match="text.mp4 is no film that can be read"):
        list(media.frames(tmp_path / "text.mp4", 3))
