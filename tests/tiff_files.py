"""TIFF files of all kinds for the tests, and what they should be read as."""

import itertools
import struct

import numpy as np
import tifffile
from PIL import Image

ORIENTATIONS = range(1, 9)
RNG = np.random.default_rng(0)
PIXELS = {
    "gray8": RNG.integers(0, 256, (5, 7), np.uint8),
    "gray16": RNG.integers(0, 65536, (5, 7), np.uint16),
    "rgb": RNG.integers(0, 256, (5, 7, 3), np.uint8),
}
MATRIX = list(itertools.product(ORIENTATIONS, PIXELS, ("raw", "tiff_lzw", "tiff_adobe_deflate")))


def write(path, pixels, orientation, compression="raw"):
    """Writes stored pixels, gray or RGB, with an orientation, by Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compression=compression, tiffinfo={274: orientation})
    return path


def write_kind(path, pixels, **options):
    """Writes pixels of any type by tifffile, which takes the options."""
    tifffile.imwrite(path, pixels, **options)
    return path


def write_raw(path, width, n_bits, row):
    """Writes one row of gray pixels of any bits, which are packed already."""
    tags = {256: width, 257: 1, 258: n_bits, 259: 1, 262: 1, 277: 1, 278: 1, 279: len(row)}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4  # where the row starts: after the directory
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + row)


def upright(stored, orientation):
    """Stored pixels as they are to be shown: an independent table of the eight orientations."""
    turned = {
        1: lambda: stored,
        2: lambda: np.flip(stored, 1),
        3: lambda: np.rot90(stored, 2),
        4: lambda: np.flip(stored, 0),
        5: lambda: np.flip(np.rot90(stored), 0),
        6: lambda: np.rot90(stored, -1),
        7: lambda: np.flip(np.rot90(stored), 1),
        8: lambda: np.rot90(stored),
    }
    return turned[orientation]()


def as_rgb8(stored, orientation):
    """What `images.load` should return for stored pixels of PIXELS."""
    pixels = upright(stored, orientation)
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257).astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
