"""Writes images: PNG, GIF, MP4, and captions."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from common import UserError
from common.images.arrays import to_uint8
from common.images.drawing import sheet


def write_captions(folder: Path, captions: Mapping[str, tuple[str, str]]) -> None:
    """Writes captions.json: title and caption of images in a folder, in the order of the report."""
    content = {name: {"title": title, "caption": text} for name, (title, text) in captions.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "captions.json").write_text(json.dumps(content, indent=1))


def save_png(path: str | Path, image: ArrayLike) -> None:
    """Writes (h, w), (h, w, 1) or (h, w, 3); creates missing folders."""
    _to_pil(image).save(_with_parents(path), "PNG")


def save_label_map(path: str | Path, labels: np.ndarray) -> None:
    """Writes labels (h, w) in 0 to 65535 as a 16-bit gray PNG; creates missing folders."""
    Image.fromarray(labels.astype(np.uint16)).save(_with_parents(path), "PNG")


def save_gif(path: str | Path, frames: Iterable[ArrayLike], seconds: float = 0.2) -> None:
    """Writes an endless GIF; seconds: per frame, the last is shown a second longer."""
    first, *others = [_to_pil(frame) for frame in frames]
    durations = [round(seconds * 1000)] * len(others) + [round(seconds * 1000) + 1000]
    first.save(
        _with_parents(path),
        "GIF",
        save_all=True,
        append_images=others,
        duration=durations,
        loop=0,
    )


def save_gif_of_rows(path: str | Path, frames: Iterable[list[np.ndarray]]) -> None:
    """Writes a GIF whose frames are rows of images, see `sheet`, padded with white to one size."""
    save_gif(path, _pad_to_one_size([sheet([row]) for row in frames]))


def save_mp4_of_rows(path: str | Path, frames: Iterable[list[np.ndarray]]) -> None:
    """Writes a video of rows of images, like `save_gif_of_rows`."""
    save_mp4(path, _pad_to_one_size([sheet([row]) for row in frames]))


def _pad_to_one_size(images: list[np.ndarray]) -> np.ndarray:
    size = [max(image.shape[axis] for image in images) for axis in (0, 1)]
    padded = np.full((len(images), *size, 3), 255, np.uint8)
    for frame, image in zip(padded, images, strict=True):
        frame[: image.shape[0], : image.shape[1]] = image
    return padded


def save_mp4(path: str | Path, frames: Iterable[ArrayLike], seconds: float = 0.2) -> None:
    """Writes a video that browsers play; seconds: per frame. Raises UserError without a writer."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError("mp4 needs imageio-ffmpeg: pip install it, or write a gif") from error
    arrays = [np.asarray(_to_pil(frame).convert("RGB")) for frame in frames]
    h, w = (side // 2 * 2 for side in arrays[0].shape[:2])  # yuv420 needs even sides
    writer = imageio_ffmpeg.write_frames(
        str(_with_parents(path)),
        (w, h),
        fps=1 / seconds,
        macro_block_size=2,
        ffmpeg_log_level="error",
    )
    writer.send(None)
    for array in arrays:
        writer.send(np.ascontiguousarray(array[:h, :w]))
    writer.close()


def _with_parents(path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _to_pil(image: ArrayLike) -> Image.Image:
    image = to_uint8(image)
    return Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
