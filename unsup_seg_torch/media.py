"""Pictures, folders of them, animations and videos as frames, one after the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence

from common import UserError, folders, images
from unsup_seg_torch import data

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


class Frame(NamedTuple):
    name: str  # that any file system takes, different for each
    path: str
    image: np.ndarray  # uint8 (h, w, 3)


def is_moving(source: Path) -> bool:
    """Whether it is a video, or a gif of several frames."""
    if source.suffix.lower() in VIDEOS:
        return True
    try:
        with Image.open(source, formats=["GIF"]) as image:
            return getattr(image, "n_frames", 1) > 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def frames(source: Path, max_frames: int, max_bad: float = 0.01) -> Iterator[Frame]:
    """The first frames of a picture, a folder of pictures, a gif or a video.

    What cannot be read is skipped, named in the log and counted. Raises UserError for a source that
    is absent or damaged, and for more bad files than the share max_bad.
    """
    if source.suffix.lower() in VIDEOS:
        yield from _video(source, max_frames)
    elif source.is_file() and is_moving(source):
        yield from _gif(source, max_frames)
    else:
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
        folders.judge(skipped, n_good, max_bad, source)


def _gif(source: Path, max_frames: int) -> Iterator[Frame]:
    try:
        with Image.open(source, formats=["GIF"]) as animation:
            if animation.width * animation.height > images.MAX_PIXELS:
                raise Image.DecompressionBombError(f"more than {images.MAX_PIXELS} pixels")
            for i, frame in enumerate(ImageSequence.Iterator(animation)):
                if i == max_frames:
                    break
                yield Frame(f"{i:05d}", str(source), np.array(frame.convert("RGB")))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{source}: {error or type(error).__name__}") from None


def _video(source: Path, max_frames: int) -> Iterator[Frame]:
    if not source.is_file() or source.stat().st_size == 0:
        raise UserError(f"{source} is {'empty' if source.is_file() else 'absent'}")
    try:
        import imageio_ffmpeg
    except ImportError:
        raise UserError(
            f"{source} is a video, and imageio-ffmpeg, which reads it, is not installed: pip "
            "install imageio-ffmpeg, or give a folder of its frames or a gif"
        ) from None
    reader = imageio_ffmpeg.read_frames(str(source))
    try:
        width, height = next(reader)["size"]
        for i, content in enumerate(reader):
            if i == max_frames:
                break
            image = np.frombuffer(content, np.uint8).reshape(height, width, 3)
            yield Frame(f"{i:05d}", str(source), image.copy())  # torch wants it writable
    except (OSError, RuntimeError, ValueError, StopIteration, KeyError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error) else type(error).__name__
        raise UserError(f"{source} is no readable video: {reason}") from None
    finally:
        reader.close()
