"""Whatever a TIFF says of its pixels is applied, or refused by name."""

import numpy as np
import pytest

from common import UserError, images, video
from common.datasets import folders
from common.images import tiff
from tests import tiff_files
from tests.tiff_files import MATRIX, PIXELS, write, write_kind

GRAY = PIXELS["gray8"]
SIGNED = GRAY.astype(np.int16) - 100
REFUSED = {
    "int8": ((GRAY // 2).astype(np.int8), {}, "signed pixels"),
    "int16": (SIGNED, {}, "signed pixels"),
    "positive int16": (GRAY.astype(np.int16), {}, "signed pixels"),
    "int32": (SIGNED.astype(np.int32), {}, "signed pixels"),
    "uint32": (GRAY.astype(np.uint32), {}, "32-bit integer pixels"),
    "large uint32": (GRAY.astype(np.uint32) << 24, {}, "32-bit integer pixels"),
    "uint64": (GRAY.astype(np.uint64), {}, "of 64 bits"),
    "float16": (GRAY.astype(np.float16), {}, "floating-point"),
    "float32": (GRAY.astype(np.float32), {}, "floating-point"),
    "NaN": (np.where(GRAY < 9, np.nan, GRAY).astype(np.float32), {}, "floating-point"),
    "float64": (GRAY.astype(np.float64), {}, "floating-point"),
    "float RGB": (np.zeros((5, 7, 3), np.float32), {"photometric": "rgb"}, "floating-point"),
    "RGB of 32 bits": (np.zeros((5, 7, 3), np.uint32), {"photometric": "rgb"}, "of 32 bits"),
    "five channels": (np.zeros((5, 7, 5), np.uint8), {"planarconfig": "contig"}, "5 unsigned"),
    "color filter array": (GRAY, {"photometric": 32803}, "color filter array"),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.tif"


@pytest.mark.parametrize(("orientation", "kind", "compression"), MATRIX)
def test_orientation_is_applied_by_every_reader(path, orientation, kind, compression):
    stored = PIXELS[kind]
    write(path, stored, orientation, compression)
    expected = tiff_files.as_rgb8(stored, orientation)
    assert np.array_equal(images.load(path), expected)
    assert images.header(path).size == expected.shape[:2]
    assert images.header(path).stored_size == stored.shape[:2]
    pixels, files, skipped = folders.read([path.parent], None, 0)
    assert np.array_equal(np.broadcast_to(pixels[0], expected.shape), expected) and not skipped
    assert np.array_equal(next(video.frames(path, 1)).image, expected)
    if kind != "rgb":
        assert np.array_equal(images.load_labels(path), tiff_files.upright(stored, orientation))


@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
def test_folder_of_equal_sizes_keeps_them(tmp_path, orientation):
    for i, kind in enumerate(("gray8", "rgb")):
        write(tmp_path / f"{i}.tif", PIXELS[kind], orientation)
    pixels, _, _ = folders.read([tmp_path], None, 0)
    for loaded, kind in zip(pixels, ("gray8", "rgb"), strict=True):
        assert np.array_equal(loaded, tiff_files.as_rgb8(PIXELS[kind], orientation))


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_white_is_zero_is_inverted(path, options):
    write_kind(path, GRAY, photometric="miniswhite", **options)
    assert np.array_equal(images.load(path, "L"), 255 - GRAY)
    deep = PIXELS["gray16"]
    write_kind(path, deep, photometric="miniswhite", **options)
    assert np.array_equal(images.load(path, "L"), np.rint((65535 - deep.astype(int)) / 257))
    write_kind(path, GRAY > 100, photometric="miniswhite")
    assert np.array_equal(images.load(path, "L"), np.where(GRAY > 100, 0, 255))
    write_kind(path, GRAY > 100, photometric="minisblack")
    assert np.array_equal(images.load(path, "L"), np.where(GRAY > 100, 255, 0))


def test_white_is_zero_is_refused_for_labels(path):
    for values in (GRAY, PIXELS["gray16"], GRAY > 100):
        write_kind(path, values, photometric="miniswhite")
        with pytest.raises(UserError, match="a.tif: TIFF with .* white is zero: expected black"):
            images.load_labels(path)


@pytest.mark.parametrize("kind", REFUSED)
def test_pixels_without_a_range_of_8_or_16_bits_are_refused_by_name(path, kind):
    pixels, options, reason = REFUSED[kind]
    write_kind(path, pixels, **{"photometric": "minisblack"} | options)
    with pytest.raises(UserError, match=f"a.tif: .*{reason}"):
        images.load(path)


def test_big_endian_and_tiles_are_read(path):
    deep = PIXELS["gray16"]
    write_kind(path, deep, byteorder=">", photometric="minisblack")
    assert np.array_equal(images.load_labels(path), deep)
    write_kind(path, deep, tile=(16, 16), bigtiff=True, photometric="minisblack")
    assert np.array_equal(images.load_labels(path), deep)
    write_kind(path, deep, byteorder=">", photometric="miniswhite")
    with pytest.raises(UserError, match="16 bits, white is zero, which Pillow cannot read"):
        images.load(path)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_planes_palettes_and_alpha_are_read(path, options):
    planes = np.moveaxis(PIXELS["rgb"], -1, 0)
    write_kind(path, planes, photometric="rgb", planarconfig="separate", **options)
    assert np.array_equal(images.load(path), PIXELS["rgb"])
    colors = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * 257
    write_kind(path, GRAY, photometric="palette", colormap=colors, **options)
    assert np.array_equal(images.load(path), (colors[:, GRAY] // 257).transpose(1, 2, 0))
    assert np.array_equal(images.load_labels(path), GRAY)
    rgba = np.dstack([PIXELS["rgb"], np.where(GRAY > 100, 255, 0).astype(np.uint8)])
    write_kind(path, rgba, photometric="rgb", extrasamples=["unassalpha"], **options)
    expected = np.where(GRAY[..., None] > 100, PIXELS["rgb"], 255)
    assert np.array_equal(images.load(path), expected)


@pytest.mark.parametrize(
    ("n_bits", "rows", "labels", "shown"),
    [
        (12, "000FFF 800001", [0, 4095, 2048, 1], [0, 255, 128, 0]),  # 2048 * 255 / 4095 = 127.5
        (4, "0F 81", [0, 15, 8, 1], [0, 255, 136, 17]),
        (2, "1B", [0, 1, 2, 3], [0, 85, 170, 255]),
    ],
)
def test_few_bits_have_the_full_range_and_exact_labels(path, n_bits, rows, labels, shown):
    tiff_files.write_raw(path, 4, n_bits, bytes.fromhex(rows))
    assert images.load_labels(path).tolist() == [labels]
    assert np.abs(images.load(path, "L")[0].astype(int) - shown).max() <= 1  # rounding of a half


def test_first_of_several_pages_is_read_and_logged_once(path, caplog):
    pages = np.stack([GRAY, 255 - GRAY])
    write_kind(path, pages, photometric="minisblack")
    for _ in range(2):
        assert np.array_equal(images.load(path, "L"), GRAY)
    assert caplog.text.count("a.tif has several pages: only the first is read") == 1


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_labels_of_any_integer_type_are_read_exactly(path, dtype):
    limits = np.iinfo(dtype)
    labels = np.array([[limits.min, 0, 1], [limits.max - 1, 7, limits.max]], dtype)
    for options in ({}, {"compression": "zlib"}):
        write_kind(path, labels, photometric="minisblack", **options)
        assert images.load_labels(path).tolist() == labels.tolist()


def test_layout_of_other_formats_is_none_and_damage_is_refused(path):
    path.write_bytes(b"\x89PNG")
    with open(path, "rb") as file:
        assert tiff.read_layout(file) is None
    path.write_bytes(b"II*\0\x08\0\0\0")
    with pytest.raises(UserError, match="a.tif: damaged TIFF header"):
        images.load(path)


@pytest.mark.parametrize("orientation", tiff_files.ORIENTATIONS)
def test_upright_turns_all_orientations(orientation):
    pixels = np.arange(6).reshape(2, 3)
    expected = tiff_files.upright(pixels, orientation)
    assert np.array_equal(tiff.upright(pixels, orientation), expected)
