"""Images of all kinds, scribbles and batches."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from common import UserError
from dfc_tf import config, data
from tests import tiff_files


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


# ---- images


def test_8_bit_png(tmp_path):
    pixels = noise(4, 5, 3)
    sample = data.load(save(tmp_path / "a b.png", pixels), 100)
    np.testing.assert_array_equal(sample.image, pixels.astype(np.float32) / 255)
    assert np.array_equal(sample.rgb, pixels) and sample.name == "a b"


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.jpg", noise(6, 12, 3), exif=exif)
    assert data.load(path, 100).image.shape == (12, 6, 3)


def test_transparency_becomes_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    assert (data.load(save(tmp_path / "a.png", pixels), 9).image == 1).all()


def test_16_bit_tif_keeps_its_precision(tmp_path):
    pixels = noise(5, 4, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", pixels)
    image = data.load(tmp_path / "deep.tif", 9).image
    np.testing.assert_allclose(image[..., 0], pixels / 65535, atol=1e-7)


def test_8_bit_tif(tmp_path):
    pixels = noise(5, 4, 3)
    assert np.array_equal(data.load(save(tmp_path / "a.tiff", pixels), 9).rgb, pixels)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tif_of_many_channels(tmp_path, planar):
    pixels = noise(6, 5, 7)
    values = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "c.tif", values, planarconfig=planar, photometric="minisblack")
    sample = data.load(tmp_path / "c.tif", 9)
    np.testing.assert_allclose(sample.image, pixels / 255, atol=1e-6)
    assert sample.rgb.shape == (6, 5, 3)


@pytest.mark.parametrize(("orientation", "kind", "compression"), tiff_files.MATRIX)
def test_tif_is_upright(tmp_path, orientation, kind, compression):
    stored = tiff_files.PIXELS[kind]
    path = tiff_files.write(tmp_path / "a.tif", stored, orientation, compression)
    expected = tiff_files.upright(stored, orientation) / np.iinfo(stored.dtype).max
    image = data.load(path, 9).image
    channels = image.shape[2] if kind == "rgb" else 1
    np.testing.assert_allclose(
        image[..., :channels], expected.reshape(*expected.shape[:2], -1), atol=1e-6
    )
    assert (image == image[..., :1]).all() or kind == "rgb"


ORIENTED = {"extratags": [(274, "H", 1, 6, True)], "photometric": "minisblack"}


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int32", "float32", "float64"])
def test_tif_of_any_numbers_is_upright_and_rescaled(tmp_path, dtype, options):
    values = np.linspace(0, 120, 35).reshape(5, 7).astype(dtype)
    tiff_files.write_kind(tmp_path / "a.tif", values, **ORIENTED, **options)
    expected = np.rot90(values, -1) / values.max()
    np.testing.assert_allclose(data.load(tmp_path / "a.tif", 9).image[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_white_is_zero_tif_is_inverted(tmp_path, options):
    for kind in ("gray8", "gray16"):
        pixels = tiff_files.PIXELS[kind]
        tiff_files.write_kind(tmp_path / "a.tif", pixels, photometric="miniswhite", **options)
        expected = 1 - pixels / np.iinfo(pixels.dtype).max
        image = data.load(tmp_path / "a.tif", 9).image
        np.testing.assert_allclose(image[..., 0], expected, atol=1e-6)


def test_planes_and_gray_channels_of_a_tif_are_upright(tmp_path):
    pixels = noise(5, 7, 3)
    for planar in ("contig", "separate"):
        values = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
        tiff_files.write_kind(tmp_path / "a.tif", values, planarconfig=planar, **ORIENTED)
        image = data.load(tmp_path / "a.tif", 9).image
        np.testing.assert_allclose(image, np.rot90(pixels, -1) / 255, atol=1e-6)


def test_deep_transparency_of_a_tif_becomes_white(tmp_path):
    pixels = noise(5, 7, 4, dtype=np.uint16)
    alpha = pixels[..., 3:] / 65535
    tiff_files.write_kind(
        tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"]
    )
    expected = pixels[..., :3] / 65535 * alpha + 1 - alpha
    np.testing.assert_allclose(data.load(tmp_path / "a.tif", 9).image, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_first_page_of_a_tif_is_read_and_logged(tmp_path, caplog, dtype):
    pages = np.linspace(0, 1, 70).reshape(2, 5, 7)
    pages = pages.astype(dtype) if dtype == "float32" else noise(2, 5, 7, dtype=dtype)
    tiff_files.write_kind(tmp_path / "a.tif", pages, photometric="minisblack")
    image = data.load(tmp_path / "a.tif", 9).image
    highest = 1 if dtype == "float32" else np.iinfo(dtype).max
    np.testing.assert_allclose(image[..., 0], pages[0] / highest, atol=1e-6)
    assert "a.tif has several pages: only the first is read" in caplog.text


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (np.array([[0, np.nan]], np.float32), {}, "NaN"),
        (np.zeros((5, 7), np.int16), {"photometric": "miniswhite"}, "signed sample .* white is"),
        (np.zeros((5, 7), np.float32), {"photometric": "miniswhite"}, "floating-point .* white"),
        (np.zeros((5, 7), np.uint16), {"photometric": 32803}, "color filter array"),
        (np.zeros((5, 7), np.complex64), {}, "complex"),
    ],
)
def test_tif_without_a_meaning_is_refused_by_name(tmp_path, pixels, options, reason):
    options = {"photometric": "minisblack"} | options
    tiff_files.write_kind(tmp_path / "a.tif", pixels, **options)
    with pytest.raises(UserError, match=f"a.tif: .*{reason}"):
        data.load(tmp_path / "a.tif", 9)


def test_npy_of_any_channels(tmp_path):
    np.save(tmp_path / "cube.npy", noise(4, 3, 9))
    np.save(tmp_path / "flat.npy", np.linspace(-5, 5, 12).reshape(4, 3))
    assert data.load(tmp_path / "cube.npy", 9).image.shape == (4, 3, 9)
    flat = data.load(tmp_path / "flat.npy", 9)
    assert (flat.image.min(), flat.image.max()) == (0, 1) and flat.rgb.shape == (4, 3, 3)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0.0, np.nan]]), "NaN"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((0, 4)), r"shape \(0, 4, 1\)"),
        (np.zeros((2, 2), "U1"), "expected numbers"),
        (np.array([[{}]], object), "Python objects"),
    ],
)
def test_invalid_npy_is_refused(tmp_path, values, reason):
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(UserError, match=f"bad.npy: .*{reason}"):
        data.load(tmp_path / "bad.npy", 9)


def test_constant_npy_is_finite(tmp_path):
    np.save(tmp_path / "flat.npy", np.full((3, 3), 7.0))
    assert np.isfinite(data.load(tmp_path / "flat.npy", 9).image).all()


def test_large_image_is_reduced(tmp_path):
    sample = data.load(save(tmp_path / "a.png", noise(40, 80, 3)), 20)
    assert sample.image.shape == (10, 20, 3) and sample.full_size == (40, 80)


# ---- folders


def test_folder_skips_masks_and_hidden_files(tmp_path):
    for name in ("b.png", "a.png", "a_scribble.png", ".hidden.png"):
        save(tmp_path / name, noise(4, 4, 3))
    (tmp_path / "notes.txt").write_text("")
    np.save(tmp_path / "c.npy", np.zeros((3, 3)))
    assert data.ImageDataset(config.Dataset(path=str(tmp_path))).names == ["a", "b", "c"]


def test_unread_image_files_are_counted(tmp_path, caplog):
    save(tmp_path / "a.jpe", noise(8, 8, 3), format="JPEG")
    for name in ("b.NEF", "c.nef", "d.jp2"):
        (tmp_path / name).write_bytes(b"x")
    assert data.ImageDataset(config.Dataset(path=str(tmp_path))).names == ["a"]
    assert f"{tmp_path}: 3 image files are not read: 2 .nef, 1 .jp2" in caplog.text
    (tmp_path / "a.jpe").unlink()
    with pytest.raises(UserError, match="contains no images .*3 image files are not read"):
        data.ImageDataset(config.Dataset(path=str(tmp_path)))


def test_names_are_unique_on_every_file_system(tmp_path):
    for name in ("a b.png", "a_b.png", "A B.png", "é\n.png", "a b.jpg"):
        save(tmp_path / name, noise(4, 4, 3))
    names = data.ImageDataset(config.Dataset(path=str(tmp_path))).names
    assert len({name.lower() for name in names}) == 5
    assert all("/" not in name and "\n" not in name and " " not in name for name in names)


@pytest.mark.parametrize(("n_cached", "n_decodes"), [(4, 4), (2, 6), (0, 7)])
def test_folder_keeps_decoded_images_up_to_a_limit(tmp_path, monkeypatch, n_cached, n_decodes):
    for i in range(4):
        save(tmp_path / f"{i}.png", noise(4, 4, 3, seed=i))
    decoded = []
    monkeypatch.setattr(data, "CACHE_BYTES", n_cached * 4 * 4 * 3 * 4)
    monkeypatch.setattr(data.images, "load", counted(data.images.load, decoded))
    dataset = data.ImageDataset(config.Dataset(path=str(tmp_path)))
    assert [dataset[i].name for i in range(4)] == ["0", "1", "2", "3"]
    # all of them once, those that were not kept again; one is kept whatever its size
    assert len(decoded) == n_decodes


def counted(function, calls):
    def call(*args):
        calls.append(args)
        return function(*args)

    return call


@pytest.mark.parametrize("name", data.SAMPLES)
def test_scikit_image_photographs_need_no_network(name):
    dataset = data.ImageDataset(config.Dataset(name=name))
    assert len(dataset) == 1 and dataset[0].image.shape[2] == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "cofee"}, "dataset.name cofee is not known"),
        ({"name": "folder"}, "needs dataset.path"),
        ({"path": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_unknown_dataset_is_refused(changes, reason):
    with pytest.raises(UserError, match=reason):
        data.ImageDataset(config.Dataset(**changes))


# ---- scribbles


def test_255_is_unmarked_in_gray_mask(tmp_path):
    mask = np.full((4, 6), 255, np.uint8)
    mask[0, :3], mask[3, 1] = 0, 15
    path = save(tmp_path / "a_scribble.png", mask)
    scribbles = data.read_scribbles(path, (4, 6), (4, 6))
    assert scribbles.tolist() == [
        [0, 0, 0, -1, -1, -1],
        [-1] * 6,
        [-1] * 6,
        [-1, 1, -1, -1, -1, -1],
    ]


def test_most_frequent_color_is_unmarked(tmp_path):
    mask = np.full((5, 5, 3), 40, np.uint8)
    mask[0], mask[4, :2] = (255, 0, 0), (0, 0, 255)
    scribbles = data.read_scribbles(save(tmp_path / "m.png", mask), (5, 5), (5, 5))
    assert scribbles[0].tolist() == [1] * 5 and scribbles[4].tolist() == [0, 0, -1, -1, -1]
    assert (scribbles[1:4] == -1).all()


def test_transparent_pixels_are_unmarked(tmp_path):
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[:3] = (9, 9, 9, 255)  # most of it is marked
    mask[0] = (200, 0, 0, 255)
    scribbles = data.read_scribbles(save(tmp_path / "m.png", mask), (4, 4), (4, 4))
    assert (scribbles[3] == -1).all() and (scribbles[1:3] == 0).all() and (scribbles[0] == 1).all()


def test_indexed_mask_is_read_by_index(tmp_path):
    mask = Image.fromarray(np.array([[255, 255, 3], [255, 7, 255]], np.uint8))
    mask = mask.convert("P")
    mask.save(tmp_path / "m.png")
    scribbles = data.read_scribbles(tmp_path / "m.png", (2, 3), (2, 3))
    assert scribbles.tolist() == [[-1, -1, 0], [-1, 1, -1]]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros((3, 4), np.uint8), "is 3x4, the image 4x4: expected the same size"),
        (np.full((4, 4), 255, np.uint8), "marks nothing"),
        (np.zeros((4, 4, 3), np.uint8), "marks nothing"),
    ],
)
def test_invalid_mask_is_refused(tmp_path, mask, reason):
    with pytest.raises(UserError, match=reason):
        data.read_scribbles(save(tmp_path / "m.png", mask), (4, 4), (4, 4))


def test_mask_of_a_turned_photograph_has_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = save(tmp_path / "a.jpg", noise(4, 6, 3), exif=exif)  # upright 6x4
    upright = np.full((6, 4), 255, np.uint8)
    upright[0], upright[3, 1] = 0, 9

    def scribbles(pixels, **options):
        mask = save(tmp_path / "a_scribble.png", pixels, **options)
        dataset = data.ImageDataset(config.Dataset(path=str(photo), scribbles=str(mask)))
        return dataset[0].scribbles

    expected = scribbles(upright)
    assert expected[0].tolist() == [0] * 4 and expected[3, 1] == 1
    # the same mask, stored like the photograph
    assert np.array_equal(scribbles(np.rot90(upright), exif=exif), expected)
    with pytest.raises(UserError, match=r"is 4x6, the image 6x4.*\(a.jpg has this size only as it"):
        scribbles(np.rot90(upright))


def test_photograph_as_mask_is_refused(tmp_path):
    with pytest.raises(UserError, match="one flat color per class"):
        data.read_scribbles(save(tmp_path / "m.png", noise(40, 40, 3)), (40, 40), (40, 40))
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(UserError, match="cannot be read"):
        data.read_scribbles(tmp_path / "text.png", (4, 4), (4, 4))


def test_thin_strokes_survive_reduction():
    mask = np.full((40, 40), -1)
    mask[:, 7], mask[13, 20:] = 0, 1
    small = data.shrink_mask(mask, (10, 10))
    assert (small[:, 1] == 0).all() and (small[3, 5:] == 1).all()
    assert (small >= 0).sum() == 10 + 5


# ---- batches


def test_reference_images_are_stacked_at_one_size(tmp_path):
    for i, shape in enumerate([(8, 6, 3), (9, 9, 3), (4, 8, 3)]):
        save(tmp_path / f"{i}.png", noise(*shape, seed=i))
    cfg = config.Config(
        config.Dataset(path=str(tmp_path), mode="reference"),
        training=config.Training(batch_size=2, max_side=8),
    )
    dataset = data.ImageDataset(cfg.dataset)
    assert data.batches(cfg, len(dataset)) == [[0, 1], [2]]
    images, scribbles, superpixels = data.stack(cfg, [dataset[0], dataset[1]])
    assert images.shape == (2, 8, 6, 3) and (scribbles == -1).all() and superpixels.size == 0


def test_superpixels_are_numbered_through_the_batch():
    sample = data.Sample(np.random.default_rng(0).random((20, 20, 3)).astype(np.float32))
    cfg = config.Config(model=config.Model(superpixels=9))
    *_, superpixels = data.stack(cfg, [sample, sample])
    n = superpixels[0].max() + 1
    assert np.array_equal(superpixels[1], superpixels[0] + n)
    assert np.unique(superpixels).tolist() == list(range(2 * n))
