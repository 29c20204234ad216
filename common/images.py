"""Reads any image as uint8; resizes, draws and writes images: grids, overlays, PNG, GIF, MP4."""

import colorsys
import contextlib
import functools
import importlib.util
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

from common import UserError, tiff

MAX_PIXELS = 178_000_000  # half a gigabyte in RGB
# Pillow reads many more formats, some of them with external programs.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
HEIF_EXTRA = "the extra heic: pip install -e '.[heic]'"

log = logging.getLogger(__name__)


class Header(NamedTuple):
    """size: (h, w) of the upright image; stored_size: (h, w) before the EXIF rotation."""

    size: tuple[int, int]
    stored_size: tuple[int, int]
    is_gray: bool


def load(path: str | Path, mode: str = "RGB") -> np.ndarray:
    """An image as uint8 (h, w, 3), or (h, w) for mode "L", rotated according to its EXIF tag.

    Transparent pixels are blended with white, 10 to 16 bits are scaled to 8; of several frames or
    pages the first is read. Raises UserError "PATH: reason" for unreadable files, for signed,
    floating-point and 32-bit pixels, and for more than MAX_PIXELS before decoding.
    """
    with opened(path) as (image, layout):
        if layout and layout.kind != "unsigned":
            raise ValueError(f"{layout.kind} pixels, expected unsigned integers of 8 or 16 bits")
        if layout and layout.bits > 16:
            raise ValueError(f"{layout.bits}-bit integer pixels, expected 8 or 16 bits")
        return np.array(_convert(ImageOps.exif_transpose(image), mode, layout))


def load_values(path: str | Path) -> np.ndarray:
    """The numbers (h, w) in a gray or indexed image of any bits, upright; see `load` for errors."""
    with opened(path) as (image, layout):
        is_deep = image.mode.startswith("I;16")
        if image.mode not in ("1", "L", "P", "I", "F") and not is_deep:
            raise ValueError(f"mode {image.mode}, expected one label per pixel")
        few_bits = re.match("L;([24])", _raw_mode(image))  # which Pillow scales to 0 to 255
        values = np.array(ImageOps.exif_transpose(image))
        if few_bits:
            values //= 255 // (2 ** int(few_bits[1]) - 1)
        if image.mode == "1":
            return values.astype(np.uint8)
        if layout and image.mode in ("L", "I") and layout.bits in (8, 32):
            sign = "i" if layout.kind == "signed" else "u"
            return values.view(f"{sign}{values.itemsize}")
        if is_deep:
            values = values.astype(np.uint16)
            if layout and layout.photometric == tiff.WHITE_IS_ZERO:
                values = 2**layout.bits - 1 - values
        return values


def load_labels(path: str | Path) -> np.ndarray:
    """A label map (h, w), rotated according to its own EXIF tag: one number per pixel, as stored.

    The image has 1 to 32 bits, gray or indexed. See `load` for errors.
    """
    with opened(path) as (_, layout):
        if layout and layout.photometric == tiff.WHITE_IS_ZERO:
            raise ValueError(f"{layout}: expected black is zero, so that the labels are clear")
    return load_values(path)


def header(path: str | Path) -> Header:
    """Size and kind of an image without decoding it; see `load` for errors."""
    with opened(path, quiet=True) as (image, layout):
        orientation = layout.orientation if layout else image.getexif().get(0x0112, 1)
        size = (image.height, image.width)
        is_swapped = orientation in (5, 6, 7, 8)
        other = size[::-1] if is_swapped else size
        is_gray = image.mode in ("1", "L", "LA", "I") or image.mode.startswith("I;16")
        # Pillow has swapped the size of a TIFF already
        return Header(size, other, is_gray) if layout else Header(other, size, is_gray)


def check_same_size(size: tuple[int, ...], image_path: str | Path) -> None:
    """Raises ValueError unless a label map has the size (h, w) of its upright image."""
    expected = header(image_path).size
    if tuple(size) != expected:
        hint = stored_size_hint(size, image_path)
        raise ValueError(f"labels {tuple(size)}, image {expected}{hint}")


def stored_size_hint(size: tuple[int, ...], image_path: str | Path) -> str:
    """What to do if a size (h, w) fits an image only without its EXIF rotation, else ""."""
    if tuple(size) != header(image_path).stored_size:
        return ""
    return (
        f" ({Path(image_path).name} has this size only as it is stored, before its EXIF orientation"
        " is applied: rotate the labels too, or save the image upright)"
    )


@contextlib.contextmanager
def opened(
    path: str | Path, quiet: bool = False
) -> Iterator[tuple[Image.Image, tiff.Layout | None]]:
    """An image that is not decoded yet, and its layout if it is a TIFF.

    Any exception inside becomes a UserError "PATH: reason". quiet: do not log further pages.
    """
    path = Path(path)
    name = str(path).replace("\n", "\\n")
    try:
        if not path.is_file():  # a pipe would block forever
            raise ValueError("not a file" if path.exists() else "no such file")
        if path.stat().st_size == 0:
            raise ValueError("empty file")
        # A file that Pillow opens by name is mapped to memory, which scrambles rotated TIFFs.
        with open(path, "rb") as file:
            layout = tiff.read_layout(file)
            try:
                image = Image.open(file, formats=FORMATS + _heif(file))
            except Image.UnidentifiedImageError:
                if layout:
                    raise ValueError(f"{layout}, which Pillow cannot read") from None
                raise
            with image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                if layout and layout.has_more_pages and not quiet:
                    log_pages(path)
                yield image, layout
    except UserError:
        raise
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise UserError(f"{name}: {_reason(error)}") from error


@functools.lru_cache(maxsize=10_000)  # once per file
def log_pages(path: Path) -> None:
    """Logs that an image has several pages."""
    log.warning("%s has several pages: only the first is read", str(path).replace("\n", "\\n"))


def can_read_heif() -> bool:
    """Whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def _heif(file: BinaryIO) -> tuple[str, ...]:
    """The format to add for a HEIC or HEIF file, whatever its name; raises ValueError."""
    head = file.read(12)
    file.seek(0)
    brands = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
    if head[4:8] != b"ftyp" or head[8:] not in brands:
        return ()
    if not can_read_heif():
        raise ValueError(f"HEIC needs {HEIF_EXTRA}")
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for the stored pixels, such as L;2 for gray of two bits."""
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _convert(image: Image.Image, mode: str, layout: tiff.Layout | None) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        highest = 2**layout.bits - 1 if layout else 65535
        if values.min() < 0 or values.max() > highest:
            raise ValueError("32-bit integer pixels, expected 8 or 16 bits")
        if layout and layout.photometric == tiff.WHITE_IS_ZERO:
            values = highest - values
        image = Image.fromarray(((values * 255 + highest // 2) // highest).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels, expected 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS // 10**6} million pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def resize(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes uint8 (h, w[, c]) to (size, size), cropping the longer side around the center.

    A pair (h, w) is the exact new size, without regard to the aspect ratio.
    """
    squeezed = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    pil = Image.fromarray(squeezed)
    # Bilinear, as in the loaders of the papers; antialiased in Pillow.
    if isinstance(size, int):
        pil = ImageOps.fit(pil, (size, size), Image.Resampling.BILINEAR)
    else:
        pil = pil.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    resized = np.array(pil)
    return resized[..., None] if squeezed is not image else resized


def fit_within(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """A size (h, w) scaled down until the longer side is max_side; None: as it is."""
    scale = min(1.0, (max_side or max(size)) / max(size))
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def shrink(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """Scales uint8 (h, w[, c]) down until the longer side is max_side; None: as it is."""
    size = fit_within(image.shape[:2], max_side)
    return image if size == image.shape[:2] else resize(image, size)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (h, w) at another size (h, w), of the nearest pixels."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]


def to_channels(pixels: np.ndarray, n_channels: int) -> np.ndarray:
    """Converts uint8 images (n, h, w, 1 or 3) to gray or RGB: (n, h, w, n_channels)."""
    if pixels.shape[3] < n_channels:
        return pixels.repeat(n_channels, axis=3)
    if pixels.shape[3] > n_channels:
        gray = pixels @ np.array([[0.299], [0.587], [0.114]])  # ITU-R 601, as in Pillow
        return np.round(gray).astype(np.uint8)
    return pixels


def unique_names(paths: Iterable[Path]) -> list[str]:
    """A unique file name without suffix for each path, valid on any file system."""
    names: list[str] = []
    used: set[str] = set()
    for i, path in enumerate(paths):
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in path.stem)[:80] or "_"
        while name.lower() in used:
            name = f"{name}_{i}"
        names.append(name)
        used.add(name.lower())
    return names


def is_single_image(X: ArrayLike | Sequence[ArrayLike]) -> bool:
    """Whether X is a single image (h, w, 3) instead of several."""
    return not isinstance(X, list | tuple) and np.ndim(X) == 3


def as_image_list(X: ArrayLike | Sequence[ArrayLike]) -> list[np.ndarray]:
    """Converts an image, or several of any sizes, to a list of uint8 (h, w, 3).

    Images are uint8, or floats in [0, 1]. Raises ValueError for anything else.
    """
    arrays = [np.asarray(image) for image in ([X] if is_single_image(X) else X)]
    if not arrays:
        raise ValueError("X is empty: expected one or more images (h, w, 3)")
    for i, image in enumerate(arrays):
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image {i} of X is {image.shape}: expected (h, w, 3)")
        if image.dtype != np.uint8:
            if image.dtype.kind != "f" or not (0 <= image.min() and image.max() <= 1):
                raise ValueError(
                    f"image {i} of X is {image.dtype}: expected uint8, or floats in [0, 1]"
                )
            arrays[i] = np.rint(image * 255).astype(np.uint8)
    return arrays


def to_uint8(array: ArrayLike) -> np.ndarray:
    """Values in [0, 1] as uint8, clipped, NaN as 0; uint8 is returned as it is."""
    array = np.asarray(array)
    if array.dtype == np.uint8:
        return array
    return np.rint(np.clip(np.nan_to_num(array.astype(np.float32)), 0, 1) * 255).astype(np.uint8)


def grid(
    images: ArrayLike, n_columns: int | None = None, pad: int = 2, scale: int = 1
) -> np.ndarray:
    """Images (n, h, w[, c]) in rows on white, as one uint8 image, about square by default.

    pad: pixels between images; scale: repeats of every pixel, to keep small images sharp.
    """
    images = to_uint8(images)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    n, h, w = images.shape[:3]
    n_columns = min(n_columns or math.ceil(math.sqrt(n)), n)
    n_rows = math.ceil(n / n_columns)
    size = (n_rows * (h + pad) - pad, n_columns * (w + pad) - pad, *images.shape[3:])
    canvas = np.full(size, 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // n_columns * (h + pad), i % n_columns * (w + pad)
        canvas[y : y + h, x : x + w] = image
    return canvas


def sheet(rows: list[list[np.ndarray]], gap: int = 4) -> np.ndarray:
    """uint8 images (h, w[, 3]) of any sizes as a table on white; rows of equal length."""
    widths = [max(image.shape[1] for image in column) for column in zip(*rows, strict=True)]
    heights = [max(image.shape[0] for image in row) for row in rows]
    size = sum(heights) + gap * (len(heights) - 1), sum(widths) + gap * (len(widths) - 1)
    canvas = np.full((*size, 3), 255, np.uint8)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for image, width in zip(row, widths, strict=True):
            rgb = image if image.ndim == 3 else image[..., None]
            canvas[y : y + image.shape[0], x : x + image.shape[1]] = rgb
            x += width + gap
        y += height + gap
    return canvas


def palette(n: int) -> np.ndarray:
    """n distinct colors (n, 3) uint8; the first ones do not depend on n."""
    # Hues in steps of the golden ratio are spread evenly for every n.
    shades = [(0.65, 0.90), (0.90, 0.65), (0.40, 0.95), (0.70, 0.45)]
    colors = [colorsys.hsv_to_rgb(i * 0.618034 % 1, *shades[i // 8 % 4]) for i in range(n)]
    return to_uint8(np.reshape(colors, (n, 3)))


def overlay(image: np.ndarray, labels: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Image (h, w[, c]) blended with the palette colors of labels (h, w); below 0: not blended."""
    image = to_uint8(image)
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.broadcast_to(image.reshape(*labels.shape, 1), (*labels.shape, 3))
    colors = palette(max(int(labels.max(initial=0)) + 1, 1))[np.maximum(labels, 0)]
    tinted = np.rint((1 - alpha) * image + alpha * colors).astype(np.uint8)
    return np.where(labels[..., None] < 0, image, tinted)


def mean_colors(rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean color of each label from 0 to the largest: (n, 3) uint8, black for unused labels.

    rgb (h, w, 3) uint8, labels (h, w).
    """
    flat = labels.ravel()
    sizes = np.maximum(np.bincount(flat), 1)
    sums = [np.bincount(flat, rgb[..., c].ravel()) for c in range(3)]
    return np.rint(np.stack(sums, 1) / sizes[:, None]).astype(np.uint8)


def contours(rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Image (h, w, 3) with the boundaries of labels (h, w) in yellow and black."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    shadow = np.zeros_like(edge)
    shadow[:, :-1] |= edge[:, 1:]
    shadow[:-1] |= edge[1:]
    drawn = rgb.copy()
    drawn[shadow] = (0, 0, 0)
    drawn[edge] = (255, 230, 0)
    return drawn


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
