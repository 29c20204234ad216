import json
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from common import UserError, images
from tests import tiff_files


def save(path, array, mode=None, **options):
    image = Image.fromarray(np.asarray(array))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


GRAY = np.array([[0, 50, 100], [150, 200, 255]], np.uint8)
COLOR = np.stack([GRAY, GRAY[::-1], GRAY // 2], axis=-1)


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
    monkeypatch.setattr(images, "can_read_heif", lambda: False)
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


def test_resize_to_an_integer_keeps_the_center():
    # columns 0 to 5; the shorter side is 2: columns 2 and 3 remain
    wide = np.tile(np.arange(6, dtype=np.uint8) * 10, (2, 1))
    assert np.array_equal(images.resize(wide, 2), [[20, 30], [20, 30]])
    assert np.array_equal(images.resize(wide[..., None], 2)[..., 0], [[20, 30], [20, 30]])


def test_resize_to_a_pair_is_height_then_width():
    assert images.resize(COLOR, (5, 4)).shape == (5, 4, 3)


def test_resize_is_antialiased():
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    assert abs(images.resize(stripes, 4).astype(int) - 100).max() <= 10


def test_fit_within_keeps_proportions_and_never_enlarges():
    assert images.fit_within((100, 50), 20) == (20, 10)
    assert images.fit_within((50, 100), 20) == (10, 20)
    assert images.fit_within((10, 5), 20) == images.fit_within((10, 5), None) == (10, 5)
    assert images.fit_within((1000, 1), 10) == (10, 1)  # at least one pixel


def test_shrink_resizes_or_returns_the_image():
    assert images.shrink(np.zeros((40, 20, 3), np.uint8), 10).shape == (10, 5, 3)
    assert images.shrink(np.zeros((40, 20), np.uint8), 10).shape == (10, 5)
    assert images.shrink(COLOR, 3) is COLOR and images.shrink(COLOR, None) is COLOR


def test_resize_labels_takes_the_nearest_pixel():
    labels = np.array([[1, 2], [3, 4]])
    assert images.resize_labels(labels, (4, 2)).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    # centers of 3 output pixels are at 1/3, 1 and 5/3 of 2 columns: in columns 0, 1 and 1
    assert images.resize_labels(labels, (1, 3)).tolist() == [[3, 4, 4]]
    assert np.array_equal(images.resize_labels(labels, (2, 2)), labels)


def test_to_channels_converts_like_pillow():
    gray, rgb = GRAY[None, ..., None], COLOR[None]
    assert images.to_channels(gray, 1) is gray and images.to_channels(rgb, 3) is rgb
    assert np.array_equal(images.to_channels(gray, 3)[0], np.stack([GRAY] * 3, axis=-1))
    converted = images.to_channels(rgb, 1)
    assert converted.dtype == np.uint8 and converted.shape == (1, 2, 3, 1)
    # 0.299 * 100 + 0.587 * 50 + 0.114 * 10 = 60.39
    assert images.to_channels(np.array([[[[100, 50, 10]]]], np.uint8), 1).tolist() == [[[[60]]]]
    pillow = np.asarray(Image.fromarray(COLOR).convert("L"))
    assert np.abs(converted[0, ..., 0].astype(int) - pillow).max() <= 1


def test_unique_names_are_valid_and_differ_without_case():
    paths = ["x/a.png", "y/A.jpg", "z/a_1.png", "a.gif", "b c/ü?.png", "\n.png", "n" * 200]
    names = images.unique_names(map(Path, paths))
    assert names[:2] == ["a", "A_1"] and names[4:6] == ["ü_", "_"]
    assert len({name.lower() for name in names}) == len(paths)
    assert len(names[6]) == 80


def test_sheet_aligns_images_of_different_sizes():
    dark, gray = np.zeros((2, 3, 3), np.uint8), np.full((1, 1), 7, np.uint8)
    sheet = images.sheet([[dark, gray], [gray, gray]], gap=1)
    assert sheet.shape == (2 + 1 + 1, 3 + 1 + 1, 3)
    assert (sheet[:2, :3] == 0).all() and (sheet[0, 4] == 7).all()
    assert (sheet[3, 0] == 7).all() and (sheet[2] == 255).all() and (sheet[1, 4] == 255).all()


def test_as_image_list_accepts_one_or_several_images():
    (single,) = images.as_image_list(COLOR)
    assert np.array_equal(single, COLOR)
    stacked = images.as_image_list(np.stack([COLOR, COLOR]))
    mixed = images.as_image_list([COLOR / 255, np.zeros((4, 4, 3), np.float32)])
    assert len(stacked) == len(mixed) == 2
    assert mixed[0].dtype == np.uint8 and np.array_equal(mixed[0], COLOR)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "X is empty"),
        (GRAY, r"image 0 of X is \(3,\): expected \(h, w, 3\)"),
        ([COLOR, GRAY], r"image 1 of X is \(2, 3\)"),
        ([np.zeros((0, 4, 3), np.uint8)], r"image 0 of X is \(0, 4, 3\)"),
        (COLOR.astype(np.int64), "image 0 of X is int64: expected uint8, or floats"),
        (COLOR.astype(float), "image 0 of X is float64: expected uint8, or floats"),
        (np.full((2, 2, 3), np.nan), "image 0 of X is float64"),
    ],
)
def test_as_image_list_refuses_other_arrays(X, message):
    with pytest.raises(ValueError, match=message):
        images.as_image_list(X)


def test_to_uint8_clips_and_rounds_floats_only():
    assert images.to_uint8([-1, 0, 0.5, 1, 2, np.nan]).tolist() == [0, 0, 128, 255, 255, 0]
    assert images.to_uint8(np.array([0, 1], np.uint8)).tolist() == [0, 1]


def test_grid_arranges_images_in_rows_on_white():
    grid = images.grid(np.zeros((3, 1, 1)), n_columns=2, pad=1)
    assert np.array_equal(grid, [[0, 255, 0], [255, 255, 255], [0, 255, 255]])
    assert images.grid(np.zeros((1, 2, 3, 1)), scale=4).shape == (8, 12)
    assert images.grid(np.zeros((5, 2, 3, 3)), pad=0).shape == (4, 9, 3)


def test_palette_is_distinct_and_independent_of_n():
    colors = images.palette(256)
    assert len(np.unique(colors, axis=0)) == 256
    assert np.array_equal(colors[:10], images.palette(10))


def test_overlay_blends_colors_except_for_negative_labels():
    labels = np.array([[0, 1, -1]])
    tinted = images.overlay(np.full((1, 3), 100, np.uint8), labels, alpha=0.5)
    expected = (100 + images.palette(2).astype(float)) / 2
    assert np.abs(tinted[0, :2] - expected).max() <= 0.5
    assert tinted[0, 2].tolist() == [100, 100, 100]


def test_mean_colors_by_hand():
    rgb = np.array([[[10, 20, 30], [20, 40, 60]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
    labels = np.array([[0, 0], [1, 3]])
    assert images.mean_colors(rgb, labels).tolist() == [
        [15, 30, 45],
        [0, 0, 0],
        [0, 0, 0],
        [255, 255, 255],
    ]


def test_contours_change_boundaries_only():
    rgb = np.full((6, 8, 3), 50, np.uint8)
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 1
    drawn = images.contours(rgb, labels)
    assert (drawn[:, [0, 1, 2, 5, 6, 7]] == 50).all()
    assert (drawn[:, 4] == (255, 230, 0)).all() and (drawn[:, 3] == 0).all()


def test_write_captions_keeps_the_order(tmp_path):
    images.write_captions(tmp_path / "new", {"b.png": ("B", "First."), "a.png": ("A", "Second.")})
    captions = json.loads((tmp_path / "new" / "captions.json").read_text())
    assert list(captions.items()) == [
        ("b.png", {"title": "B", "caption": "First."}),
        ("a.png", {"title": "A", "caption": "Second."}),
    ]


def test_save_gif_shows_the_last_frame_longer(tmp_path):
    images.save_gif(tmp_path / "new" / "a.gif", [GRAY, 255 - GRAY, GRAY], seconds=0.1)
    with Image.open(tmp_path / "new" / "a.gif") as gif:
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            gif.load()
            durations.append(gif.info["duration"])
    assert durations == [100, 100, 1100]


def test_save_png_is_lossless(tmp_path):
    images.save_png(tmp_path / "new" / "a.png", COLOR)
    assert np.array_equal(images.load(tmp_path / "new" / "a.png"), COLOR)


def test_save_label_map_keeps_16_bits(tmp_path):
    labels = np.array([[0, 255], [256, 65535]])
    images.save_label_map(tmp_path / "new" / "a.png", labels)
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert np.array_equal(np.asarray(image), labels)


def test_save_gif_of_rows_pads_frames_to_one_size(tmp_path):
    small, large = np.zeros((2, 2), np.uint8), np.zeros((5, 3), np.uint8)
    images.save_gif_of_rows(tmp_path / "a.gif", [[small, small], [large, small]])
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size) == (2, (3 + 4 + 2, 5))
        first = np.asarray(gif.convert("L"))
    assert (first[:2, :2] == 0).all() and (first[2:] == 255).all()


def test_save_mp4_writes_or_names_the_missing_package(tmp_path, monkeypatch):
    images.save_mp4(tmp_path / "a.mp4", [np.zeros((33, 32))] * 3)
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match="imageio-ffmpeg"):
        images.save_mp4(tmp_path / "b.mp4", [GRAY])
