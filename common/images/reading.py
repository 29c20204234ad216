"""Reads any image as uint8, upright, or refuses it with the reason."""

import contextlib
import functools
import importlib.util
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from common import UserError
from common.images import tiff

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
