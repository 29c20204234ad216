"""Pictures, folders of them, animations and films as frames, one after the other."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from common import UserError, images
from common.datasets import folders
from unsup_seg_torch import data

log = logging.getLogger("unsup_seg_torch.media")

FILMS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


class Frame(NamedTuple):
    name: str  # that any file system takes, different for each
    path: str
    image: np.ndarray  # uint8 (h, w, 3)


def is_film(path: Path) -> bool:
    """By its name; a gif by its second frame."""
    if path.suffix.lower() in FILMS:
        return True
    try:
        with Image.open(path, formats=["GIF"]) as picture:
            return picture.is_animated
    except Exception:  # a broken file makes Pillow raise nearly anything; `frames` says what
        return False


def frames(source: Path, max_frames: int, max_bad: float = 0.01) -> Iterator[Frame]:
    """The first frames of a picture, a folder of pictures, or a film.

    Pictures that cannot be read are skipped, named in the log and counted. Raises UserError for a
    source that is absent or damaged, and for more bad files than the share max_bad.
    """
    if is_film(source):
        for i, image in zip(range(max_frames), _read(source), strict=False):
            yield Frame(f"{i:05d}", str(source), image)
        return
    listed, skipped = folders.list_images(source)
    listed = listed[:max_frames]
    names, n_good = data.unique_names(listed), 0
    for name, path in zip(names, listed, strict=True):
        try:
            yield Frame(name, str(path), images.load(path))
            n_good += 1
        except UserError as error:
            if len(listed) == 1:
                raise
            skipped.append((str(path), str(error)))
    folders.check_skipped(skipped, n_good, max_bad, source)


def unpack(film: Path, folder: Path, n: int) -> Path:
    """Writes up to n frames, evenly spread over the film, as folder/frame_00001.png and so on.

    Raises UserError for what is no film.
    """
    n_frames = sum(1 for _ in _read(film))
    chosen = np.unique(np.linspace(0, n_frames - 1, min(n, n_frames)).round().astype(int))
    for old in folder.glob("frame_*.png"):
        old.unlink()
    n_written = 0
    for i, image in enumerate(_read(film)):
        if i in chosen:
            n_written += 1
            images.save_png(folder / f"frame_{n_written:05d}.png", image)
    log.info("frames: %d, %s", n_written, folder)
    return folder


def _read(film: Path) -> Iterator[np.ndarray]:
    """Its frames, uint8 (h, w, 3): of a gif by Pillow, of all else by imageio-ffmpeg."""
    if not film.is_file():
        raise UserError(f"{film} is absent, expected a film, a picture or a folder of them")
    n_read = 0
    try:
        for image in _gif(film) if film.suffix.lower() == ".gif" else _stream(film):
            n_read += 1
            yield image
    except UserError:
        raise
    except Exception as error:
        log.warning("%s ends after %d frames: %s", film, n_read, error or type(error).__name__)
    if n_read == 0:
        raise UserError(f"{film} is no film that can be read")


def _gif(film: Path) -> Iterator[np.ndarray]:
    images.load(film)  # refuses what would not fit into memory
    with Image.open(film) as picture:
        for frame in ImageSequence.Iterator(picture):
            yield np.array(frame.convert("RGB"))


def _stream(film: Path) -> Iterator[np.ndarray]:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise UserError(
            f"{film} is a film, and imageio-ffmpeg, which reads films, is not installed: "
            "pip install it, or give a folder of the frames or a gif"
        ) from None
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", f"file:{film.resolve()}"]
    command += ["-f", "image2pipe", "-c:v", "ppm", "-"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet) as process:
        while process.stdout.readline() == b"P6\n":
            width, height = map(int, process.stdout.readline().split())
            process.stdout.readline()  # the largest value, 255
            content = process.stdout.read(3 * width * height)
            if len(content) == 3 * width * height:
                image = np.frombuffer(content, np.uint8).reshape(height, width, 3)
                yield image.copy()  # torch wants it writable
