import json
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from common import UserError, images


def save(path, array, mode=None, **options):
    picture = Image.fromarray(np.asarray(array))
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


GRAY = np.array([[0, 50, 100], [150, 200, 255]], np.uint8)
COLOUR = np.stack([GRAY, GRAY[::-1], GRAY // 2], axis=-1)


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
def test_gray_pictures_load_as_three_equal_channels_and_as_one(tmp_path, name, mode):
    path = save(tmp_path / name, GRAY, mode)
    assert np.array_equal(images.load(path), np.stack([GRAY] * 3, axis=-1))
    assert np.array_equal(images.load(path, "L"), GRAY)


def test_colours_survive_every_lossless_format(tmp_path):
    for name, options in {
        "a.png": {},
        "a.bmp": {},
        "a.tif": {},
        "a.webp": {"lossless": True},
    }.items():
        assert np.array_equal(images.load(save(tmp_path / name, COLOUR, **options)), COLOUR)


def test_transparent_pixels_become_white(tmp_path):
    alpha = np.array([[255, 0, 255], [255, 255, 0]], np.uint8)
    expected = np.where(alpha[..., None] == 255, COLOUR, 255)
    rgba = save(tmp_path / "rgba.png", np.dstack([COLOUR, alpha]))
    assert np.array_equal(images.load(rgba), expected)
    la = save(tmp_path / "la.png", np.dstack([GRAY, GRAY, GRAY, alpha]), "LA")
    assert np.array_equal(images.load(la, "L"), np.where(alpha == 255, GRAY, 255))
    palette = save(tmp_path / "p.png", GRAY, "P", transparency=0)  # palette entry 0 is black
    assert np.array_equal(images.load(palette, "L"), np.where(GRAY == 0, 255, GRAY))


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path):
    wide = GRAY.astype(np.uint16) * 257  # 255 * 257 = 65535
    for name in ("a.png", "a.tif", "a.pgm"):
        assert np.array_equal(images.load(save(tmp_path / name, wide), "L"), GRAY)


def test_cmyk_loads_as_rgb(tmp_path):
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    loaded = images.load(save(tmp_path / "a.jpg", red, "CMYK", quality=95))
    assert loaded.shape == (8, 8, 3)
    assert np.abs(loaded.astype(int) - red).max() <= 4  # JPEG loses a little


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise
    path = save(tmp_path / "a.png", GRAY, exif=exif)
    assert np.array_equal(images.load(path, "L"), np.rot90(GRAY, -1))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_pictures_one_pixel_wide_load_and_resize(tmp_path, shape):
    loaded = images.load(save(tmp_path / "a.png", np.full(shape, 7, np.uint8)))
    assert loaded.shape == (*shape, 3)
    assert np.array_equal(images.resize(loaded, 5), np.full((5, 5, 3), 7))


def test_an_animation_gives_its_first_frame(tmp_path):
    images.save_gif(tmp_path / "a.gif", [GRAY, 255 - GRAY])
    assert np.array_equal(images.load(tmp_path / "a.gif", "L"), GRAY)


def test_names_with_spaces_and_other_alphabets_load(tmp_path):
    path = save(tmp_path / "ein Bild\n中文 é.png", GRAY)
    assert np.array_equal(images.load(path, "L"), GRAY)


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    save(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path):
    """A png whose header claims 40,000 x 40,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data)
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize(
    "name, make, reason",
    [
        ("cut.jpg", truncated, "truncated"),
        ("cut.png", truncated, "truncated"),
        ("text.png", lambda path: path.write_text("not pixels"), "not a picture"),
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
def test_what_cannot_be_read_is_named_with_the_reason_in_one_line(tmp_path, name, make, reason):
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"(?i){reason}") as error:
        images.load(tmp_path / name)
    assert name.replace("\n", "\\n") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_read_permission_is_named(tmp_path):
    path = save(tmp_path / "a.png", GRAY)
    path.chmod(0)
    with pytest.raises(UserError, match="permission denied"):
        images.load(path)


def test_resize_to_one_number_keeps_the_centre():
    # columns 0..5; the shorter side is 2, so columns 2 and 3 stay
    wide = np.tile(np.arange(6, dtype=np.uint8) * 10, (2, 1))
    assert np.array_equal(images.resize(wide, 2), [[20, 30], [20, 30]])
    assert np.array_equal(images.resize(wide[..., None], 2)[..., 0], [[20, 30], [20, 30]])


def test_resize_to_a_pair_is_height_then_width():
    assert images.resize(COLOUR, (5, 4)).shape == (5, 4, 3)


def test_resize_averages_instead_of_skipping_pixels():
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    assert abs(images.resize(stripes, 4).astype(int) - 100).max() <= 10


def test_to_uint8_clips_rounds_and_leaves_bytes_alone():
    assert images.to_uint8([-1, 0, 0.5, 1, 2, np.nan]).tolist() == [0, 0, 128, 255, 255, 0]
    assert images.to_uint8(np.array([0, 1], np.uint8)).tolist() == [0, 1]


def test_to_channels_converts_gray_and_rgb():
    gray, rgb = np.full((1, 1, 1, 1), 9, np.uint8), np.array([[[[100, 50, 10]]]], np.uint8)
    assert images.to_channels(gray, 3).tolist() == [[[[9, 9, 9]]]]
    # 0.299 * 100 + 0.587 * 50 + 0.114 * 10 = 60.39
    assert images.to_channels(rgb, 1).tolist() == [[[[60]]]]
    assert images.to_channels(rgb, 3) is rgb


def test_grid_places_images_row_by_row_on_white():
    picture = images.grid(np.zeros((3, 1, 1)), n_columns=2, pad=1)
    assert np.array_equal(picture, [[0, 255, 0], [255, 255, 255], [0, 255, 255]])
    assert images.grid(np.zeros((1, 2, 3, 1)), scale=4).shape == (8, 12)
    assert images.grid(np.zeros((5, 2, 3, 3)), pad=0).shape == (4, 9, 3)


def test_palette_colours_are_distinct_and_stable():
    colours = images.palette(256)
    assert len(np.unique(colours, axis=0)) == 256
    assert np.array_equal(colours[:10], images.palette(10))


def test_overlay_mixes_colours_and_leaves_negative_labels_bare():
    labels = np.array([[0, 1, -1]])
    tinted = images.overlay(np.full((1, 3), 100, np.uint8), labels, alpha=0.5)
    expected = (100 + images.palette(2).astype(float)) / 2
    assert np.abs(tinted[0, :2] - expected).max() <= 0.5
    assert tinted[0, 2].tolist() == [100, 100, 100]


def test_mean_colours_are_those_of_the_labels():
    rgb = np.array([[[10, 20, 30], [20, 40, 60]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
    labels = np.array([[0, 0], [1, 3]])
    found = images.mean_colors(rgb, labels)
    assert found.tolist() == [[15, 30, 45], [0, 0, 0], [0, 0, 0], [255, 255, 255]]


def test_contours_leave_the_inside_of_regions_as_it_is():
    rgb = np.full((6, 8, 3), 50, np.uint8)
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 1
    drawn = images.contours(rgb, labels)
    assert (drawn[:, [0, 1, 2, 5, 6, 7]] == 50).all()
    assert (drawn[:, 4] == (255, 230, 0)).all() and (drawn[:, 3] == 0).all()


def test_captions_keep_their_order(tmp_path):
    images.write_captions(tmp_path / "new", {"b.png": ("B", "First."), "a.png": ("A", "Second.")})
    said = json.loads((tmp_path / "new" / "captions.json").read_text())
    assert list(said.items()) == [
        ("b.png", {"title": "B", "caption": "First."}),
        ("a.png", {"title": "A", "caption": "Second."}),
    ]


def test_a_gif_keeps_its_frames_and_lasts_longer_on_the_last(tmp_path):
    images.save_gif(tmp_path / "new" / "a.gif", [GRAY, 255 - GRAY, GRAY], seconds=0.1)
    with Image.open(tmp_path / "new" / "a.gif") as gif:
        durations = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            gif.load()
            durations.append(gif.info["duration"])
    assert durations == [100, 100, 1100]


def test_a_saved_png_loads_as_it_was(tmp_path):
    images.save_png(tmp_path / "new" / "a.png", COLOUR)
    assert np.array_equal(images.load(tmp_path / "new" / "a.png"), COLOUR)


def test_an_mp4_is_written_or_says_what_is_missing(tmp_path):
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="imageio-ffmpeg"):
            images.save_mp4(tmp_path / "a.mp4", [GRAY])
    else:
        images.save_mp4(tmp_path / "a.mp4", [np.zeros((33, 32))] * 3)
        assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
