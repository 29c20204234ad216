"""A film as a folder of its frames: what else is a folder of pictures in time order."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from common import UserError, images

log = logging.getLogger("unsup_seg_torch.movies")

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")


def is_movie(path: Path) -> bool:
    """By its name; of a gif by its number of frames."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix.lower() != ".gif":
        return False
    try:
        with Image.open(path) as picture:
            return getattr(picture, "n_frames", 1) > 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False  # what is wrong with it is said where pictures are read


def unpack(path: Path, folder: Path, n: int) -> Path:
    """Writes up to n frames, evenly spread over the film, as folder/frame_00001.png and so on.

    A gif needs no more than Pillow, all else imageio-ffmpeg. Raises UserError for what is no film.
    """
    if not path.is_file():
        raise UserError(f"{path} is absent, expected a film, a picture or a folder of them")
    read = _gif if path.suffix.lower() == ".gif" else _film
    for old in folder.glob("frame_*.png"):
        old.unlink()
    n_written = 0
    for frame in read(path, n):
        n_written += 1
        images.save_png(folder / f"frame_{n_written:05d}.png", frame)
    if not n_written:
        raise UserError(f"{path} has no frame that can be read")
    log.info("frames: %d, %s", n_written, folder)
    return folder


def _gif(path: Path, n: int) -> Iterator[np.ndarray]:
    images.load(path)  # refuses what would not fit into memory
    with Image.open(path) as picture:
        for i in _chosen(picture.n_frames, n):
            picture.seek(i)
            yield np.asarray(picture.convert("RGB"))


def _film(path: Path, n: int) -> Iterator[np.ndarray]:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise UserError(
            f"{path} is a film, and imageio-ffmpeg, which reads films, is not installed: "
            "pip install it, or give a folder of the frames"
        ) from None
    try:
        n_frames, _ = imageio_ffmpeg.count_frames_and_secs(str(path.resolve()))
    except (OSError, RuntimeError):
        raise UserError(f"{path} is no film that ffmpeg can read") from None
    chosen = set(_chosen(n_frames, n))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", f"file:{path.resolve()}"]
    command += ["-f", "image2pipe", "-c:v", "ppm", "-"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet) as process:
        for i in range(n_frames):
            if process.stdout.readline() != b"P6\n":  # the film is shorter than it says
                break
            width, height = map(int, process.stdout.readline().split())
            process.stdout.readline()  # the largest value, 255
            frame = process.stdout.read(3 * width * height)
            if i in chosen and len(frame) == 3 * width * height:
                yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)


def _chosen(n_frames: int, n: int) -> list[int]:
    """Of n_frames at most n, the first and the last among them."""
    return sorted(set(np.linspace(0, n_frames - 1, min(n, n_frames)).round().astype(int).tolist()))
