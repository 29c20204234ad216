import os
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from common import UserError, images
from tests import tiff_files
from tests.image_files import COLOR, GRAY


def save(path, array, mode=None, **options):
    image = Image.fromarray(np.asarray(array))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.mark.parametrize(
    "name, mode",
    [
        ("a.png", "L"),
        ("a.bmp", "L"),
        ("a.gif", "L"),
        ("a.pgm", "L"),
        ("a.tif", "L"),
        ("a.png", "P"),
    ],
)
def test_load_gray_as_rgb_and_as_gray(tmp_path, name, mode):
    path = save(tmp_path / name, GRAY, mode)
    assert np.array_equal(images.load(path), np.stack([GRAY] * 3, axis=-1))
    assert np.array_equal(images.load(path, "L"), GRAY)


def test_load_lossless_formats_exactly(tmp_path):
    for name, options in {
        "a.png": {},
        "a.bmp": {},
        "a.tif": {},
        "a.webp": {"lossless": True},
    }.items():
        assert np.array_equal(images.load(save(tmp_path / name, COLOR, **options)), COLOR)


def test_load_blends_transparency_with_white(tmp_path):
    alpha = np.array([[255, 0, 255], [255, 255, 0]], np.uint8)
    expected = np.where(alpha[..., None] == 255, COLOR, 255)
    rgba = save(tmp_path / "rgba.png", np.dstack([COLOR, alpha]))
    assert np.array_equal(images.load(rgba), expected)
    la = save(tmp_path / "la.png", np.dstack([GRAY, GRAY, GRAY, alpha]), "LA")
    assert np.array_equal(images.load(la, "L"), np.where(alpha == 255, GRAY, 255))
    palette = save(tmp_path / "p.png", GRAY, "P", transparency=0)  # palette entry 0 is black
    assert np.array_equal(images.load(palette, "L"), np.where(GRAY == 0, 255, GRAY))


def test_load_scales_16_bits(tmp_path):
    wide = GRAY.astype(np.uint16) * 257  # 255 * 257 = 65535
    for name in ("a.png", "a.tif", "a.pgm"):
        assert np.array_equal(images.load(save(tmp_path / name, wide), "L"), GRAY)


def test_load_cmyk_as_rgb(tmp_path):
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    loaded = images.load(save(tmp_path / "a.jpg", red, "CMYK", quality=95))
    assert loaded.shape == (8, 8, 3)
    assert np.abs(loaded.astype(int) - red).max() <= 4  # JPEG loses a little


def test_load_applies_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    path = save(tmp_path / "a.png", GRAY, exif=exif)
    assert np.array_equal(images.load(path, "L"), np.rot90(GRAY, -1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_images_one_pixel_wide_load_and_resize(tmp_path, shape):
    loaded = images.load(save(tmp_path / "a.png", np.full(shape, 7, np.uint8)))
    assert loaded.shape == (*shape, 3)
    assert np.array_equal(images.resize(loaded, 5), np.full((5, 5, 3), 7))


def test_load_first_frame_of_an_animation(tmp_path):
    images.save_gif(tmp_path / "a.gif", [GRAY, 255 - GRAY])
    assert np.array_equal(images.load(tmp_path / "a.gif", "L"), GRAY)


def test_load_unusual_names(tmp_path):
    path = save(tmp_path / "ein Bild\n中文 é.png", GRAY)
    assert np.array_equal(images.load(path, "L"), GRAY)


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    save(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_png(path, width, height, n_bits, color_type, data):
    """A png of rows that are packed already; color_type 0: gray, 2: RGB."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, n_bits, color_type, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, b"IDAT" + zlib.compress(data), b"IEND")
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def bomb(path):
    write_png(path, 40_000, 40_000, 8, 2, b"\0" * 100)


# ---- label maps


@pytest.mark.parametrize(
    ("n_bits", "row", "labels"),
    [(1, "A0", [1, 0, 1, 0]), (2, "1B", [0, 1, 2, 3]), (4, "0F81", [0, 15, 8, 1])]
    + [(8, "00FF0703", [0, 255, 7, 3]), (16, "0000FFFF01000003", [0, 65535, 256, 3])],
)
def test_labels_of_a_gray_png_of_any_bits_are_exact(tmp_path, n_bits, row, labels):
    path = write_png(tmp_path / "a.png", 4, 1, n_bits, 0, b"\0" + bytes.fromhex(row))
    assert images.load_labels(path).tolist() == [labels]


def test_labels_of_an_indexed_png_are_its_indices(tmp_path):
    for values in (GRAY, GRAY // 100):  # 8 bits and 2
        path = save(tmp_path / "a.png", values, "P")
        assert np.array_equal(images.load_labels(path), values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_and_headers_are_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tif"):
        options = {"tiffinfo": {0x0112: orientation}} if name == "a.tif" else {"exif": exif}
        path = save(tmp_path / name, GRAY, **options)
        upright = tiff_files.upright(GRAY, orientation)
        assert np.array_equal(images.load_labels(path), upright)
        assert images.header(path) == (upright.shape, GRAY.shape, True)
        images.check_same_size(upright.shape, path)
        with pytest.raises(ValueError, match=r"labels \(9, 9\), image"):
            images.check_same_size((9, 9), path)
        if orientation >= 5:
            with pytest.raises(ValueError, match=f"{name} has this size only as it is stored"):
                images.check_same_size(GRAY.shape, path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colors_are_not_labels(tmp_path, mode):
    with pytest.raises(UserError, match=f"mode {mode}, expected one label per pixel"):
        images.load_labels(save(tmp_path / "a.png", COLOR, mode))


# ---- HEIC


def heic(path, orientation=1):
    """A red and a blue half, side by side as stored."""
    pillow_heif.register_heif_opener()
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = (255, 0, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, "HEIF", quality=95, exif=exif.tobytes())
    return path, pixels


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.jpg"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_load_heic_upright_whatever_its_name(tmp_path, name, orientation):
    path, stored = heic(tmp_path / name, orientation)
    expected = tiff_files.upright(stored, orientation).astype(int)
    loaded = images.load(path)
    assert loaded.shape == expected.shape == (*images.header(path).size, 3)
    assert np.abs(loaded - expected).mean() < 3  # a lossy format


def test_heic_without_its_package_is_refused_with_the_extra(tmp_path, monkeypatch):
    path, _ = heic(tmp_path / "a.heic")
    monkeypatch.setattr(images.reading, "can_read_heif", lambda: False)
    with pytest.raises(UserError, match=r"HEIC needs the extra heic: pip install -e '.\[heic\]'"):
        images.load(path)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "jif", "jfi"])
def test_load_jpeg_of_other_suffixes(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", COLOR, format="JPEG")
    assert images.load(path).shape == COLOR.shape


# ---- unreadable files


@pytest.mark.parametrize(
    "name, make, reason",
    [
        ("cut.jpg", truncated, "truncated"),
        ("cut.png", truncated, "truncated"),
        ("text.png", lambda path: path.write_text("not pixels"), "not an image"),
        ("zero.png", lambda path: path.write_bytes(b""), "empty file"),
        ("absent.png", lambda path: None, "no such file"),
        ("folder.png", lambda path: path.mkdir(), "not a file"),
        ("pipe.png", os.mkfifo, "not a file"),
        ("loop.png", lambda path: path.symlink_to(path), "no such file|symbolic link"),
        ("bomb.png", bomb, "more than 178 million pixels"),
        ("float.tif", lambda path: save(path, GRAY.astype(np.float32)), "floating-point"),
        ("two\nlines.png", lambda path: path.write_bytes(b""), "empty file"),
    ],
)  # fmt: skip
def test_load_refuses_bad_files_with_the_reason_in_one_line(tmp_path, name, make, reason):
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"(?i){reason}") as error:
        images.load(tmp_path / name)
    assert name.replace("\n", "\\n") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read all files")
def test_load_refuses_a_file_without_permission(tmp_path):
    path = save(tmp_path / "a.png", GRAY)
    path.chmod(0)
    with pytest.raises(UserError, match="permission denied"):
        images.load(path)
