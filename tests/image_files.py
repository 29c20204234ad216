"""Image files for the tests: plain, of many formats, and unreadable."""

import os

import numpy as np
from PIL import Image

GRAY = np.array([[0, 50, 100], [150, 200, 255]], np.uint8)
COLOR = np.stack([GRAY, GRAY[::-1], GRAY // 2], axis=-1)
N_KINDS = 9
UNREAD = "photo.NEF"
ROTATED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"


def write(path, *size, seed=0, **options):
    """Writes noise, by default 8x8 RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size or (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_all_kinds(folder):
    """Writes N_KINDS images of different modes, sizes and names, and a link to the folder.

    Also UNREAD, an image file of another format.
    """
    write(folder / "gray.png", 9, 5)
    write(folder / "with\nbreak.png", 7, 7, 4)
    write(folder / "é ü.png", 20, 30, 3)
    write(folder / "tiny.png", 1, 1)
    write(folder / "line.png", 1, 40)
    write(folder / "rotated.jpg", 12, 6, exif=ROTATED)
    Image.new("CMYK", (8, 8), (9, 80, 30, 5)).save(folder / "cmyk.jpg")
    Image.new("P", (8, 8), 3).save(folder / "palette.png")  # a single color
    Image.new("I;16", (8, 8), 40000).save(folder / "deep.png")
    (folder / UNREAD).write_bytes(b"raw")
    (folder / "circle").symlink_to(folder)
    return folder


def write_bad(folder):
    """Writes three files that cannot be decoded: cut.jpg, text.png and zero.png."""
    os.truncate(write(folder / "cut.jpg", 64, 64), 500)
    (folder / "text.png").write_text("not an image")
    (folder / "zero.png").write_bytes(b"")
    return folder
