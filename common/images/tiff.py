"""What the header of a TIFF says about its pixels, parts of which Pillow and tifffile ignore."""

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import TiffImagePlugin

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3
SEPARATED, YCBCR, CIELAB = 5, 6, 8
PHOTOMETRICS = {
    WHITE_IS_ZERO: "white is zero",
    BLACK_IS_ZERO: "black is zero",
    RGB: "RGB",
    PALETTE: "palette",
    4: "transparency mask",
    SEPARATED: "CMYK",
    YCBCR: "YCbCr",
    CIELAB: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
    32803: "color filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
ASSOCIATED, UNASSOCIATED = 1, 2  # alpha in ExtraSamples: colors are multiplied by it, or not
ALPHAS = (ASSOCIATED, UNASSOCIATED)
KINDS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "unsigned", 5: "complex", 6: "complex"}
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF


@dataclass(frozen=True)
class Layout:
    """The pixels of the first page; kind is one of KINDS, alpha the tag ExtraSamples of the last.

    bits: of each sample; orientation: 1 to 8 as in EXIF.
    """

    bits: int
    kind: str
    n_samples: int
    photometric: int
    orientation: int
    alpha: int
    has_more_pages: bool

    @property
    def is_gray(self) -> bool:
        return self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and self.n_samples == 1

    def __str__(self) -> str:
        samples = "sample" if self.n_samples == 1 else "samples"
        meaning = PHOTOMETRICS.get(self.photometric, f"photometric {self.photometric}")
        text = f"{self.n_samples} {self.kind} {samples} of {self.bits} bits, {meaning}"
        return f"TIFF with {text}"


def read_layout(file: BinaryIO) -> Layout | None:
    """The layout of a TIFF, None for another format; raises ValueError for damaged headers.

    The position in the file is 0 afterwards.
    """
    file.seek(0)
    head = file.read(8)
    if head[:4] not in _MAGIC:
        file.seek(0)
        return None
    if b"+" in head[:4]:
        head += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    try:
        file.seek(tags.next)
        tags.load(file)
        width, height = tags[256], tags[257]
    except Exception as error:  # nearly anything
        raise ValueError("damaged TIFF header") from error
    file.seek(0)
    n_samples = int(tags.get(277, 1))
    bits, formats = (set(_tuple(tags.get(tag, 1))[:n_samples]) for tag in (258, 339))
    if len(bits) > 1 or len(formats) > 1:
        raise ValueError("TIFF whose samples differ in type: expected the same bits in all")
    photometric = int(tags.get(262, BLACK_IS_ZERO))
    subsampling = _tuple(tags.get(530, (2, 2)))
    if photometric == YCBCR and tags.get(259, 1) == 1 and max(subsampling) > 1:
        raise ValueError("TIFF with subsampled YCbCr pixels, expected RGB")
    if width < 1 or height < 1:
        raise ValueError(f"TIFF of {width}x{height} pixels")
    orientation = int(tags.get(274, 1))
    if orientation not in range(1, 9):
        orientation = 1  # as Pillow does
    return Layout(
        bits.pop(),
        KINDS.get(formats.pop(), "unknown"),
        n_samples,
        photometric,
        orientation,
        int(_tuple(tags.get(338, 0))[-1]),
        tags.next != 0,
    )


def _tuple(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels (h, w[, c]) as they are to be shown: rows or columns may be swapped."""
    if orientation >= 5:  # stored by columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
