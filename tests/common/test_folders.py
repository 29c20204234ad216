import logging
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from common import datasets
from tests.common.data_sets import picture, refusal, write


@pytest.fixture
def photos(tmp_path):
    return tmp_path / "photos"


def load(photos, **options):
    return datasets.load("folder", path=photos, **options)


def test_a_flat_folder_has_no_labels_and_keeps_its_one_size(photos):
    files = [picture(photos / f"{i}.png") for i in range(3)]
    loaded = load(photos)
    assert loaded.images.shape == (3, 6, 8, 3) and loaded.labels is None is loaded.classes
    assert loaded.paths == [str(file) for file in files] and loaded.skipped == []
    assert np.array_equal(loaded.images[1], np.asarray(Image.open(files[1])))


def test_sub_folders_are_classes_and_deeper_ones_belong_to_the_top(photos):
    for name in ("dog/1.png", "cat/old/x/2.png", "cat/3.png"):
        picture(photos / name)
    loaded = load(photos)
    assert loaded.classes == ["cat", "dog"]
    assert [loaded.classes[k] for k in loaded.labels] == [
        os.path.relpath(path, photos).split(os.sep)[0] for path in loaded.paths
    ]


@pytest.mark.parametrize("names", [("a/1.png", "2.png"), ("a/1.png", "a/b/2.png")])
def test_files_beside_sub_folders_or_a_single_sub_folder_give_no_labels(photos, names):
    for name in names:
        picture(photos / name)
    assert load(photos).labels is None


def test_mixed_sizes_are_loaded_at_64_and_said(photos, caplog):
    caplog.set_level(logging.INFO)
    picture(photos / "a.png", (10, 100, 3))
    picture(photos / "b.jpg", (300, 200, 3))
    assert load(photos).images.shape == (2, 64, 64, 3)
    assert "differ in size" in caplog.text
    assert load(photos, size=16).images.shape == (2, 16, 16, 3)
    assert load(photos, size=[16, 20]).images.shape == (2, 16, 20, 3)  # as YAML has it


def test_a_number_crops_the_centre_and_a_pair_squeezes(photos):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255  # the centre square is white
    photos.mkdir()
    Image.fromarray(wide).save(photos / "a.png")
    assert load(photos, size=4).images.min() == 255
    assert load(photos, size=(4, 4)).images[0, 0, :, 0].tolist()[::3] == [0, 0]


def test_gray_folders_have_one_channel_and_one_colour_image_makes_three(photos):
    for mode in ("L", "LA", "1"):
        picture(photos / f"{mode}.png", (6, 8), mode)
    Image.fromarray(np.full((6, 8), 40000, np.uint16)).save(photos / "deep.png")
    loaded = load(photos)
    assert loaded.images.shape == (4, 6, 8, 1)
    assert loaded.images[loaded.paths.index(str(photos / "deep.png"))].max() == 156  # 40000 / 257
    picture(photos / "p.gif", (6, 8), "P")
    assert load(photos).images.shape == (5, 6, 8, 3)


def test_every_mode_is_converted(photos):
    for i, mode in enumerate(("RGB", "RGBA", "P", "L")):
        picture(photos / f"{i}.png", mode=mode)
    picture(photos / "cmyk.jpg", mode="CMYK")
    assert load(photos).images.shape == (5, 6, 8, 3)


def test_a_turned_photograph_counts_with_its_upright_size(photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(photos / "a.jpg", (8, 6, 3), exif=exif)
    picture(photos / "b.jpg", (6, 8, 3))
    assert load(photos).images.shape == (2, 6, 8, 3)


def test_one_pixel_images_work(photos):
    picture(photos / "a.png", (1, 1, 3))
    picture(photos / "b.png", (1, 50, 3))
    assert load(photos, size=8).images.shape == (2, 8, 8, 3)


def test_a_single_image_is_a_data_set_of_one(photos):
    loaded = load(picture(photos / "a.png"))
    assert loaded.images.shape == (1, 6, 8, 3) and loaded.labels is None


def bad_files(folder):
    """Every kind of file that looks like an image by its name and is none; 5 of them."""
    good = picture(folder / "good.jpg", (40, 40, 3)).read_bytes()
    write(folder / "cut.jpg", good[: len(good) // 2])
    write(folder / "text.png", b"not an image")
    write(folder / "empty.png", b"")
    (folder / "nowhere.png").symlink_to(folder / "absent.png")
    os.mkfifo(folder / "pipe.png")
    return {"cut.jpg", "text.png", "empty.png", "nowhere.png", "pipe.png"}


def test_bad_files_are_skipped_named_and_counted(photos, caplog):
    names = bad_files(photos)
    loaded = load(photos, max_bad=0.9)
    assert loaded.paths == [str(photos / "good.jpg")] and len(loaded.images) == 1
    assert {os.path.basename(path) for path, _ in loaded.skipped} == names
    assert all(reason and str(photos) not in reason for _, reason in loaded.skipped)
    assert all(f"skipped '{photos / name}'" in caplog.text for name in names)
    assert "5 of 6 images cannot be read" in caplog.text


def test_images_stay_with_their_paths_and_labels_when_files_between_are_skipped(photos):
    write(photos / "a/0.png", b"")
    first = picture(photos / "a/1.png")
    write(photos / "b/0.png", b"")
    second = picture(photos / "b/1.png")
    loaded = load(photos, max_bad=0.5)
    assert loaded.paths == [str(first), str(second)] and loaded.labels.tolist() == [0, 1]
    for image, path in zip(loaded.images, loaded.paths, strict=True):
        assert np.array_equal(image, np.asarray(Image.open(path)))


def test_more_bad_files_than_max_bad_are_refused(photos):
    for i in range(99):
        picture(photos / f"{i:02}.png", (2, 2, 3))
    write(photos / "bad.png", b"")
    assert len(load(photos).images) == 99  # 1 of 100 is not more than 1 %
    write(photos / "bad2.png", b"")
    line = refusal("folder", path=photos)
    assert "2 of 101 images cannot be read" in line and "raise dataset.max_bad" in line
    assert "bad.png" in line and "empty" in line


def test_nothing_but_bad_files_is_refused_whatever_max_bad(photos):
    write(photos / "bad.png", b"")
    assert "1 of 1 images cannot be read" in refusal("folder", path=photos, max_bad=1.0)


def test_a_missing_an_empty_and_another_kind_of_path_are_refused(photos):
    assert "is absent" in refusal("folder", path=photos)
    write(photos / "notes.txt", b"text")
    assert "holds no image" in refusal("folder", path=photos)
    assert "a file of another kind" in refusal("folder", path=photos / "notes.txt")


def test_hidden_files_and_other_kinds_are_no_bad_images(photos):
    picture(photos / "a.png")
    for name in (".hidden.png", ".git/x.png", "notes.txt", "Thumbs.db"):
        write(photos / name, b"nothing")
    loaded = load(photos)
    assert len(loaded.images) == 1 and loaded.skipped == []


def test_a_decompression_bomb_is_skipped_before_its_pixels_are_decoded(photos):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)  # 10 GB once decoded
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    write(photos / "bomb.png", start + chunk(b"IDAT", zlib.compress(bytes(1000))))
    picture(photos / "a.png")
    loaded = load(photos, max_bad=0.5)
    assert len(loaded.images) == 1 and "million pixels" in loaded.skipped[0][1]


def test_odd_names_work_and_stay_on_one_log_line(photos, caplog):
    names = ["with space.png", "new\nline.png", "été 猫.png", "quote'\".png", "a: b.png"]
    for name in names:
        picture(photos / name)
    assert sorted(map(os.path.basename, load(photos).paths)) == sorted(names)
    write(photos / "bad\nline: x.png", b"")
    loaded = load(photos, max_bad=0.5)
    assert loaded.skipped == [(str(photos / "bad\nline: x.png"), "empty file")]
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_a_name_that_is_not_utf8_is_skipped_by_name(photos):
    picture(photos / "a.png")
    os.rename(picture(photos / "b.png"), os.fsencode(photos) + b"/\xff.png")
    loaded = load(photos, max_bad=0.5)
    assert len(loaded.images) == 1 and "udcff" in loaded.skipped[0][0]


def test_links_in_a_circle_do_not_hang(photos):
    picture(photos / "a/1.png")
    picture(photos / "b/2.png")
    (photos / "a/up").symlink_to(photos)
    (photos / "b/self").symlink_to(photos / "b/self")
    assert len(load(photos).images) == 2


def test_an_unreadable_file_is_skipped_by_name(photos):
    picture(photos / "a.png")
    picture(photos / "b.png").chmod(0)
    if os.access(photos / "b.png", os.R_OK):
        pytest.skip("this user reads everything, file modes or not")
    loaded = load(photos, max_bad=0.5)
    assert [path for path, _ in loaded.skipped] == [str(photos / "b.png")]


def test_a_folders_checksum_sees_names_and_content_and_not_the_size_loaded(photos):
    picture(photos / "a.png")
    path = picture(photos / "b.png")
    before = load(photos).checksum
    assert load(photos, size=4).checksum == before
    path.write_bytes(path.read_bytes() + b"x")
    content = load(photos).checksum
    path.rename(photos / "c.png")
    assert len({before, content, load(photos).checksum}) == 3


def test_a_split_of_a_folder_is_a_sub_folder(photos):
    picture(photos / "train/a/1.png")
    picture(photos / "train/b/2.png")
    assert load(photos, split="train").classes == ["a", "b"]


def test_real_folder(real):
    folder = real("cifar10_folder", "frog")
    loaded = load(folder)
    assert loaded.images.shape == (2000, 32, 32, 3) and loaded.skipped == []
