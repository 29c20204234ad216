"""Pictures, folders, animations and videos as frames."""

import os
import sys

import numpy as np
import pytest

from common import UserError, images
from unsup_seg_torch import media


def frame(i, size=(12, 16)):
    return np.full((*size, 3), 40 * i, np.uint8)


def test_a_picture_is_one_frame_and_a_folder_has_them_by_name(tmp_path):
    for i in (2, 0, 1):
        images.save_png(tmp_path / f"{i}.png", frame(i))
    (one,) = media.frames(tmp_path / "1.png", 10)
    assert one.name == "1" and (one.image == 40).all()
    assert [each.name for each in media.frames(tmp_path, 10)] == ["0", "1", "2"]
    assert len(list(media.frames(tmp_path, 2))) == 2
    assert not media.is_moving(tmp_path / "1.png") and not media.is_moving(tmp_path)


def test_a_gif_has_all_its_frames(tmp_path):
    images.save_gif(tmp_path / "a.gif", [frame(i) for i in range(4)])
    found = list(media.frames(tmp_path / "a.gif", 3))
    assert media.is_moving(tmp_path / "a.gif")
    assert [int(each.image[0, 0, 0]) for each in found] == [0, 40, 80]
    assert [each.name for each in found] == ["00000", "00001", "00002"]
    images.save_gif(tmp_path / "still.gif", [frame(1)])
    assert not media.is_moving(tmp_path / "still.gif")
    os.truncate(tmp_path / "a.gif", 40)
    with pytest.raises(UserError, match="a.gif"):
        list(media.frames(tmp_path / "a.gif", 3))


def test_what_cannot_be_read_is_skipped_but_not_if_it_is_all(tmp_path):
    for i in range(3):
        images.save_png(tmp_path / f"{i}.png", frame(i))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="1 of 4 images cannot be read"):
        list(media.frames(tmp_path, 10))
    assert len(list(media.frames(tmp_path, 10, max_bad=0.5))) == 3
    with pytest.raises(UserError, match="text.png: not a picture"):
        list(media.frames(tmp_path / "text.png", 10))


def test_a_video_without_its_reader_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    (tmp_path / "a.mp4").write_bytes(b"some")
    with pytest.raises(UserError, match="a.mp4 is a video, and imageio-ffmpeg.*a folder of its"):
        list(media.frames(tmp_path / "a.mp4", 3))


def test_a_video_is_read_as_it_was_written(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    images.save_mp4(tmp_path / "a.mp4", [frame(i, (64, 96)) for i in range(5)])
    found = list(media.frames(tmp_path / "a.mp4", 4))
    assert len(found) == 4 and found[0].image.shape == (64, 96, 3)
    assert [int(each.image.mean()) for each in found] == pytest.approx([0, 40, 80, 120], abs=8)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # its pipe stays open
def test_a_file_that_is_no_video_is_refused(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(UserError, match="a.mp4 is no readable video"):
        list(media.frames(tmp_path / "a.mp4", 3))
