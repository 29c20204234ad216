"""Pictures of all kinds, masks, and what is made of them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from common import UserError
from dfc_tf import config, data


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


# ---- pictures


def test_eight_bits_become_zero_to_one(tmp_path):
    pixels = noise(4, 5, 3)
    picture = data.load(save(tmp_path / "a b.png", pixels), 100)
    np.testing.assert_array_equal(picture.image, pixels.astype(np.float32) / 255)
    assert np.array_equal(picture.rgb, pixels) and picture.name == "a b"


def test_a_turned_photograph_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.jpg", noise(6, 12, 3), exif=exif)
    assert data.load(path, 100).image.shape == (12, 6, 3)


def test_transparency_is_laid_over_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    assert (data.load(save(tmp_path / "a.png", pixels), 9).image == 1).all()


def test_sixteen_bits_of_a_tif_are_all_kept(tmp_path):
    pixels = noise(5, 4, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", pixels)
    found = data.load(tmp_path / "deep.tif", 9).image
    np.testing.assert_allclose(found[..., 0], pixels / 65535, atol=1e-7)


def test_an_ordinary_tif_is_a_picture(tmp_path):
    pixels = noise(5, 4, 3)
    picture = data.load(save(tmp_path / "a.tiff", pixels), 9)
    assert np.array_equal(picture.rgb, pixels)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_tif_may_have_many_channels(tmp_path, planar):
    pixels = noise(6, 5, 7)
    values = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(tmp_path / "c.tif", values, planarconfig=planar, photometric="minisblack")
    found = data.load(tmp_path / "c.tif", 9)
    np.testing.assert_allclose(found.image, pixels / 255, atol=1e-6)
    assert found.rgb.shape == (6, 5, 3)


def test_an_array_may_have_many_channels_or_none(tmp_path):
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
def test_an_array_that_is_no_picture_is_refused_by_name(tmp_path, values, reason):
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(UserError, match=f"bad.npy: .*{reason}"):
        data.load(tmp_path / "bad.npy", 9)


def test_equal_values_are_no_division_by_zero(tmp_path):
    np.save(tmp_path / "flat.npy", np.full((3, 3), 7.0))
    assert np.isfinite(data.load(tmp_path / "flat.npy", 9).image).all()


def test_a_large_picture_is_reduced_in_proportion(tmp_path):
    picture = data.load(save(tmp_path / "a.png", noise(40, 80, 3)), 20)
    assert picture.image.shape == (10, 20, 3)
    assert data.fit((1000, 1), 10) == (10, 1) and data.fit((7, 5), None) == (7, 5)


def test_each_pixel_of_an_enlarged_map_is_the_one_it_falls_into():
    labels = np.array([[1, 2], [3, 4]])
    expected = [[1, 1, 2, 2], [3, 3, 4, 4]]
    assert data.nearest(labels, (2, 4)).tolist() == expected
    assert data.nearest(np.array(expected), (2, 2)).tolist() == labels.tolist()


# ---- folders


def test_a_folder_is_read_by_name_without_masks_and_hidden_files(tmp_path):
    for name in ("b.png", "a.png", "a_scribble.png", ".hidden.png"):
        save(tmp_path / name, noise(4, 4, 3))
    (tmp_path / "notes.txt").write_text("")
    np.save(tmp_path / "c.npy", np.zeros((3, 3)))
    found = data.Pictures(config.Dataset(path=str(tmp_path)))
    assert found.names == ["a", "b", "c"]


def test_names_differ_on_every_file_system(tmp_path):
    for name in ("a b.png", "a_b.png", "A B.png", "é\n.png", "a b.jpg"):
        save(tmp_path / name, noise(4, 4, 3))
    names = data.Pictures(config.Dataset(path=str(tmp_path))).names
    assert len({name.lower() for name in names}) == 5
    assert all("/" not in name and "\n" not in name and " " not in name for name in names)


@pytest.mark.parametrize("name", data.SAMPLES)
def test_the_photographs_of_scikit_image_are_there_without_a_network(name):
    found = data.Pictures(config.Dataset(name=name))
    assert len(found) == 1 and found[0].image.shape[2] == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "cofee"}, "dataset.name cofee is not known"),
        ({"name": "folder"}, "needs dataset.path"),
        ({"path": "nowhere"}, "nowhere is absent"),
    ],
)
def test_what_is_not_there_is_refused(changes, reason):
    with pytest.raises(UserError, match=reason):
        data.Pictures(config.Dataset(**changes))


# ---- scribbles


def test_a_mask_of_the_paper_has_255_where_nothing_is_marked(tmp_path):
    mask = np.full((4, 6), 255, np.uint8)
    mask[0, :3], mask[3, 1] = 0, 15
    path = save(tmp_path / "a_scribble.png", mask)
    found = data.read_scribbles(path, (4, 6), (4, 6))
    assert found.tolist() == [[0, 0, 0, -1, -1, -1], [-1] * 6, [-1] * 6, [-1, 1, -1, -1, -1, -1]]


def test_a_coloured_mask_is_unmarked_where_it_is_most_often_the_same(tmp_path):
    mask = np.full((5, 5, 3), 40, np.uint8)
    mask[0], mask[4, :2] = (255, 0, 0), (0, 0, 255)
    found = data.read_scribbles(save(tmp_path / "m.png", mask), (5, 5), (5, 5))
    assert found[0].tolist() == [1] * 5 and found[4].tolist() == [0, 0, -1, -1, -1]
    assert (found[1:4] == -1).all()


def test_what_is_transparent_is_unmarked(tmp_path):
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[:3] = (9, 9, 9, 255)  # most of it is marked
    mask[0] = (200, 0, 0, 255)
    found = data.read_scribbles(save(tmp_path / "m.png", mask), (4, 4), (4, 4))
    assert (found[3] == -1).all() and (found[1:3] == 0).all() and (found[0] == 1).all()


def test_an_indexed_mask_is_read_by_its_numbers(tmp_path):
    mask = Image.fromarray(np.array([[255, 255, 3], [255, 7, 255]], np.uint8))
    mask = mask.convert("P")
    mask.save(tmp_path / "m.png")
    found = data.read_scribbles(tmp_path / "m.png", (2, 3), (2, 3))
    assert found.tolist() == [[-1, -1, 0], [-1, 1, -1]]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros((3, 4), np.uint8), "is 3x4, the picture 4x4: they must be of one size"),
        (np.full((4, 4), 255, np.uint8), "marks nothing"),
        (np.zeros((4, 4, 3), np.uint8), "marks nothing"),
    ],
)
def test_a_wrong_mask_is_refused(tmp_path, mask, reason):
    with pytest.raises(UserError, match=reason):
        data.read_scribbles(save(tmp_path / "m.png", mask), (4, 4), (4, 4))


def test_a_photograph_is_no_mask(tmp_path):
    with pytest.raises(UserError, match="one flat colour a class"):
        data.read_scribbles(save(tmp_path / "m.png", noise(40, 40, 3)), (40, 40), (40, 40))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="cannot be read"):
        data.read_scribbles(tmp_path / "text.png", (4, 4), (4, 4))


def test_a_thin_stroke_survives_when_its_mask_is_reduced():
    mask = np.full((40, 40), -1)
    mask[:, 7], mask[13, 20:] = 0, 1
    small = data.shrink_mask(mask, (10, 10))
    assert (small[:, 1] == 0).all() and (small[3, 5:] == 1).all()
    assert (small >= 0).sum() == 10 + 5


# ---- what is trained on


def test_reference_pictures_are_stacked_at_one_size(tmp_path):
    for i, shape in enumerate([(8, 6, 3), (9, 9, 3), (4, 8, 3)]):
        save(tmp_path / f"{i}.png", noise(*shape, seed=i))
    cfg = config.Config(
        config.Dataset(path=str(tmp_path), mode="reference"),
        training=config.Training(batch_size=2, max_side=8),
    )
    found = data.Pictures(cfg.dataset)
    assert data.batches(cfg, len(found)) == [[0, 1], [2]]
    images, scribbles, superpixels = data.stack(cfg, [found[0], found[1]])
    assert images.shape == (2, 8, 6, 3) and (scribbles == -1).all() and superpixels.size == 0


def test_superpixels_are_numbered_through_a_batch():
    image = np.random.default_rng(0).random((20, 20, 3)).astype(np.float32)
    picture = data.Picture("", "", image, data.to_rgb(image))
    cfg = config.Config(model=config.Model(superpixels=9))
    *_, superpixels = data.stack(cfg, [picture, picture])
    n = superpixels[0].max() + 1
    assert np.array_equal(superpixels[1], superpixels[0] + n)
    assert np.unique(superpixels).tolist() == list(range(2 * n))
