"""Reads the frames of an image, a folder of images, an animated GIF or a video."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from common import UserError, images
from common.datasets import folders

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


class Frame(NamedTuple):
    name: str  # unique, valid on any file system
    path: str
    image: np.ndarray  # uint8 (h, w, 3)


def is_video(path: Path) -> bool:
    """Whether a path has the suffix of a video, or is an animated GIF."""
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        with Image.open(path, formats=["GIF"]) as image:
            return image.is_animated
    except Exception:  # a damaged file makes Pillow raise nearly anything; `frames` reports it
        return False


def frames(source: Path, max_frames: int, max_bad: float = 0.01) -> Iterator[Frame]:
    """The first max_frames frames of an image, a folder of images, a GIF or a video.

    Unreadable images are skipped and logged. Raises UserError for a missing or damaged source, and
    if more than a fraction max_bad of the images is unreadable.
    """
    if is_video(source):
        for i, image in zip(range(max_frames), _read(source), strict=False):
            yield Frame(f"{i:05d}", str(source), image)
        return
    listed, skipped = folders.list_images(source)
    listed = listed[:max_frames]
    names, n_good = images.unique_names(listed), 0
    for name, path in zip(names, listed, strict=True):
        try:
            yield Frame(name, str(path), images.load(path))
            n_good += 1
        except UserError as error:
            if len(listed) == 1:
                raise
            skipped.append((str(path), str(error)))
    folders.check_skipped(skipped, n_good, max_bad, source)


def unpack(video: Path, folder: Path, n: int) -> Path:
    """Writes up to n evenly spaced frames of a video as FOLDER/frame_00001.png etc.

    Raises UserError if it is not a readable video.
    """
    n_frames = sum(1 for _ in _read(video))
    chosen = np.unique(np.linspace(0, n_frames - 1, min(n, n_frames)).round().astype(int))
    for path in folder.glob("frame_*.png"):
        path.unlink()
    n_written = 0
    for i, image in enumerate(_read(video)):
        if i in chosen:
            n_written += 1
            images.save_png(folder / f"frame_{n_written:05d}.png", image)
    log.info("%d frames in %s", n_written, folder)
    return folder


def _read(video: Path) -> Iterator[np.ndarray]:
    """The frames uint8 (h, w, 3) of a GIF (with Pillow) or a video (with imageio-ffmpeg)."""
    if not video.is_file():
        raise UserError(f"{video} does not exist: expected a video, an image or a folder of images")
    n_read = 0
    try:
        for image in _gif(video) if video.suffix.lower() == ".gif" else _stream(video):
            n_read += 1
            yield image
    except UserError:
        raise
    except Exception as error:
        log.warning("%s ends after %d frames: %s", video, n_read, error or type(error).__name__)
    if n_read == 0:
        raise UserError(f"{video} is not a readable video")


def _gif(video: Path) -> Iterator[np.ndarray]:
    images.load(video)  # refuses images that are too large for memory
    with Image.open(video) as image:
        for frame in ImageSequence.Iterator(image):
            yield np.array(frame.convert("RGB"))


def _stream(video: Path) -> Iterator[np.ndarray]:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise UserError(
            f"{video} needs imageio-ffmpeg, which is not installed: pip install imageio-ffmpeg, or "
            "give a folder of frames or a GIF"
        ) from None
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", f"file:{video.resolve()}"]
    command += ["-f", "image2pipe", "-c:v", "ppm", "-"]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=subprocess.PIPE, stderr=null) as process:
        while process.stdout.readline() == b"P6\n":
            width, height = map(int, process.stdout.readline().split())
            process.stdout.readline()  # the maximum value, 255
            content = process.stdout.read(3 * width * height)
            if len(content) == 3 * width * height:
                image = np.frombuffer(content, np.uint8).reshape(height, width, 3)
                yield image.copy()  # writable: PyTorch warns of read-only arrays
