import os
import sys

import numpy as np
import pytest

from common import UserError, images, video


def gray(i, size=(12, 16)):
    return np.full((*size, 3), 30 * i, np.uint8)


@pytest.fixture
def gif(tmp_path):
    """Seven gray frames, from dark to light."""
    images.save_gif(tmp_path / "video.gif", [gray(i) for i in range(7)])
    return tmp_path / "video.gif"


def grays(folder):
    return [int(images.load(path)[0, 0, 0]) for path in sorted(folder.iterdir())]


def test_frames_of_an_image_and_of_a_folder(tmp_path):
    for i in (2, 0, 1):
        images.save_png(tmp_path / f"{i}.png", gray(i))
    (frame,) = video.frames(tmp_path / "1.png", 10)
    assert frame.name == "1" and frame.path == str(tmp_path / "1.png")
    assert (frame.image == 30).all()
    assert [frame.name for frame in video.frames(tmp_path, 10)] == ["0", "1", "2"]
    assert len(list(video.frames(tmp_path, 2))) == 2


def test_images_are_not_videos(tmp_path):
    images.save_gif(tmp_path / "still.gif", [gray(1)])
    (tmp_path / "text.gif").write_text("not an image")
    for name in ("still.gif", "text.gif", "missing.gif", "a.png", "."):
        assert not video.is_video(tmp_path / name)
    assert video.is_video(tmp_path / "A.MP4")


def test_frames_of_a_gif(gif):
    assert video.is_video(gif)
    frames = list(video.frames(gif, 3))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == pytest.approx([0, 30, 60], abs=1)
    assert [frame.name for frame in frames] == ["00000", "00001", "00002"]
    assert len(list(video.frames(gif, 10))) == 7
    os.truncate(gif, 40)
    with pytest.raises(UserError, match="video.gif"):
        list(video.frames(gif, 3))


def test_truncated_gif_has_the_frames_before(gif, caplog):
    os.truncate(gif, gif.stat().st_size - 30)
    n = len(list(video.frames(gif, 10)))
    assert 1 <= n < 7 and f"video.gif ends after {n} frames" in caplog.text


def test_unpack_writes_evenly_spaced_frames(gif, tmp_path):
    folder = video.unpack(gif, tmp_path / "frames", 4)
    names = [f"frame_0000{i}.png" for i in (1, 2, 3, 4)]
    assert [path.name for path in sorted(folder.iterdir())] == names
    assert grays(folder) == pytest.approx([0, 60, 120, 180], abs=1)
    video.unpack(gif, folder, 99)  # replaces earlier frames
    assert len(grays(folder)) == 7
    video.unpack(gif, folder, 2)
    assert grays(folder) == pytest.approx([0, 180], abs=1)


def test_unreadable_images_are_skipped_unless_too_many(tmp_path):
    for i in range(3):
        images.save_png(tmp_path / f"{i}.png", gray(i))
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(UserError, match="1 of 4 images cannot be read"):
        list(video.frames(tmp_path, 10))
    assert len(list(video.frames(tmp_path, 10, max_bad=0.5))) == 3
    with pytest.raises(UserError, match="text.png: not an image"):
        list(video.frames(tmp_path / "text.png", 10))


def test_missing_video_is_refused(tmp_path):
    with pytest.raises(UserError, match="a.mp4 does not exist: expected a video"):
        video.unpack(tmp_path / "a.mp4", tmp_path / "frames", 3)
    assert not (tmp_path / "frames").exists()


def test_video_without_imageio_ffmpeg_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    (tmp_path / "a.mp4").write_bytes(b"video")
    with pytest.raises(UserError, match="a.mp4 needs imageio-ffmpeg, which is not installed: pip"):
        list(video.frames(tmp_path / "a.mp4", 3))


def test_frames_of_an_mp4(tmp_path):
    mp4 = tmp_path / "video.mp4"
    images.save_mp4(mp4, [gray(i, (48, 64)) for i in range(7)])
    frames = list(video.frames(mp4, 3))  # colors are compressed
    assert [int(frame.image.mean()) for frame in frames] == pytest.approx([0, 30, 60], abs=8)
    assert frames[0].image.shape == (48, 64, 3)
    folder = video.unpack(mp4, tmp_path / "frames", 3)
    assert grays(folder) == pytest.approx([0, 90, 180], abs=8)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(UserError, match="text.mp4 is not a readable video"):
        list(video.frames(tmp_path / "text.mp4", 3))
