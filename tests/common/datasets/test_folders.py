import logging
import os
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from common import datasets, images
from tests.common.datasets.files import error_of, write, write_image


@pytest.fixture
def photos(tmp_path):
    return tmp_path / "photos"


def load(photos, **options):
    return datasets.load("folder", path=photos, **options)


def test_flat_folder_has_no_labels_and_keeps_its_size(photos):
    files = [write_image(photos / f"{i}.png") for i in range(3)]
    dataset = load(photos)
    assert dataset.images.shape == (3, 6, 8, 3) and dataset.labels is None is dataset.classes
    assert dataset.paths == [str(file) for file in files] and dataset.skipped == []
    assert np.array_equal(dataset.images[1], np.asarray(Image.open(files[1])))


def test_top_level_sub_folders_are_classes(photos):
    for name in ("dog/1.png", "cat/old/x/2.png", "cat/3.png"):
        write_image(photos / name)
    dataset = load(photos)
    assert dataset.classes == ["cat", "dog"]
    assert [dataset.classes[k] for k in dataset.labels] == [
        os.path.relpath(path, photos).split(os.sep)[0] for path in dataset.paths
    ]


@pytest.mark.parametrize("names", [("a/1.png", "2.png"), ("a/1.png", "a/b/2.png")])
def test_loose_files_or_one_sub_folder_give_no_labels(photos, names):
    for name in names:
        write_image(photos / name)
    assert load(photos).labels is None


def test_mixed_sizes_are_resized_to_64_and_logged(photos, caplog):
    caplog.set_level(logging.INFO)
    write_image(photos / "a.png", (10, 100, 3))
    write_image(photos / "b.jpg", (300, 200, 3))
    assert load(photos).images.shape == (2, 64, 64, 3)
    assert "differ in size" in caplog.text
    assert load(photos, size=16).images.shape == (2, 16, 16, 3)
    assert load(photos, size=[16, 20]).images.shape == (2, 16, 20, 3)  # as YAML has it


def test_integer_size_crops_and_a_pair_stretches(photos):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255  # the central square is white
    photos.mkdir()
    Image.fromarray(wide).save(photos / "a.png")
    assert load(photos, size=4).images.min() == 255
    assert load(photos, size=(4, 4)).images[0, 0, :, 0].tolist()[::3] == [0, 0]


def test_gray_folder_has_one_channel_unless_an_image_has_color(photos):
    for mode in ("L", "LA", "1"):
        write_image(photos / f"{mode}.png", (6, 8), mode)
    Image.fromarray(np.full((6, 8), 40000, np.uint16)).save(photos / "deep.png")
    dataset = load(photos)
    assert dataset.images.shape == (4, 6, 8, 1)
    assert dataset.images[dataset.paths.index(str(photos / "deep.png"))].max() == 156  # 40000 / 257
    write_image(photos / "p.gif", (6, 8), "P")
    assert load(photos).images.shape == (5, 6, 8, 3)


def test_all_modes_are_converted(photos):
    for i, mode in enumerate(("RGB", "RGBA", "P", "L")):
        write_image(photos / f"{i}.png", mode=mode)
    write_image(photos / "cmyk.jpg", mode="CMYK")
    assert load(photos).images.shape == (5, 6, 8, 3)


def test_exif_rotation_is_applied_to_the_size(photos):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(photos / "a.jpg", (8, 6, 3), exif=exif)
    write_image(photos / "b.jpg", (6, 8, 3))
    assert load(photos).images.shape == (2, 6, 8, 3)


def test_one_pixel_images_work(photos):
    write_image(photos / "a.png", (1, 1, 3))
    write_image(photos / "b.png", (1, 50, 3))
    assert load(photos, size=8).images.shape == (2, 8, 8, 3)


def test_single_image_is_a_dataset_of_one(photos):
    dataset = load(write_image(photos / "a.png"))
    assert dataset.images.shape == (1, 6, 8, 3) and dataset.labels is None


def bad_files(folder):
    """Writes one good image and five other files with the suffix of one; their names."""
    good = write_image(folder / "good.jpg", (40, 40, 3)).read_bytes()
    write(folder / "cut.jpg", good[: len(good) // 2])
    write(folder / "text.png", b"not an image")
    write(folder / "empty.png", b"")
    (folder / "nowhere.png").symlink_to(folder / "absent.png")
    os.mkfifo(folder / "pipe.png")
    return {"cut.jpg", "text.png", "empty.png", "nowhere.png", "pipe.png"}


def test_bad_files_are_skipped_and_logged(photos, caplog):
    names = bad_files(photos)
    dataset = load(photos, max_bad=0.9)
    assert dataset.paths == [str(photos / "good.jpg")] and len(dataset.images) == 1
    assert {os.path.basename(path) for path, _ in dataset.skipped} == names
    assert all(reason and str(photos) not in reason for _, reason in dataset.skipped)
    assert all(f"skipped '{photos / name}'" in caplog.text for name in names)
    assert "5 of 6 images cannot be read" in caplog.text


def test_images_match_paths_and_labels_despite_skipped_files(photos):
    write(photos / "a/0.png", b"")
    first = write_image(photos / "a/1.png")
    write(photos / "b/0.png", b"")
    second = write_image(photos / "b/1.png")
    dataset = load(photos, max_bad=0.5)
    assert dataset.paths == [str(first), str(second)] and dataset.labels.tolist() == [0, 1]
    for image, path in zip(dataset.images, dataset.paths, strict=True):
        assert np.array_equal(image, np.asarray(Image.open(path)))


def test_more_bad_files_than_max_bad_are_refused(photos):
    for i in range(99):
        write_image(photos / f"{i:02}.png", (2, 2, 3))
    write(photos / "bad.png", b"")
    assert len(load(photos).images) == 99  # 1 of 100 is not more than 1 %
    write(photos / "bad2.png", b"")
    line = error_of(load, photos)
    assert "2 of 101 images cannot be read" in line and "raise dataset.max_bad" in line
    assert "bad.png" in line and "empty" in line


def test_only_bad_files_are_refused_for_any_max_bad(photos):
    write(photos / "bad.png", b"")
    assert "1 of 1 images cannot be read" in error_of(load, photos, max_bad=1.0)


def test_missing_empty_and_other_paths_are_refused(photos):
    assert "does not exist" in error_of(load, photos)
    write(photos / "notes.txt", b"text")
    assert "contains no images" in error_of(load, photos)
    assert "is not an image" in error_of(load, photos / "notes.txt")


def test_hidden_and_other_files_are_ignored(photos):
    write_image(photos / "a.png")
    for name in (".hidden.png", ".git/x.png", "notes.txt", "Thumbs.db"):
        write(photos / name, b"nothing")
    dataset = load(photos)
    assert len(dataset.images) == 1 and dataset.skipped == []


def test_decompression_bomb_is_skipped_before_decoding(photos):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)  # 10 GB once decoded
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    write(photos / "bomb.png", start + chunk(b"IDAT", zlib.compress(bytes(1000))))
    write_image(photos / "a.png")
    dataset = load(photos, max_bad=0.5)
    assert len(dataset.images) == 1 and "million pixels" in dataset.skipped[0][1]


def test_unusual_names_load_and_are_logged_in_one_line(photos, caplog):
    names = ["with space.png", "new\nline.png", "été 猫.png", "quote'\".png", "a: b.png"]
    for name in names:
        write_image(photos / name)
    assert sorted(map(os.path.basename, load(photos).paths)) == sorted(names)
    write(photos / "bad\nline: x.png", b"")
    dataset = load(photos, max_bad=0.5)
    assert dataset.skipped == [(str(photos / "bad\nline: x.png"), "empty file")]
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_name_that_is_not_utf8_is_skipped(photos):
    write_image(photos / "a.png")
    os.rename(write_image(photos / "b.png"), os.fsencode(photos) + b"/\xff.png")
    dataset = load(photos, max_bad=0.5)
    assert len(dataset.images) == 1 and "udcff" in dataset.skipped[0][0]


def test_circular_links_do_not_hang(photos):
    write_image(photos / "a/1.png")
    write_image(photos / "b/2.png")
    (photos / "a/up").symlink_to(photos)
    (photos / "b/self").symlink_to(photos / "b/self")
    assert len(load(photos).images) == 2


def test_file_without_permission_is_skipped(photos):
    write_image(photos / "a.png")
    write_image(photos / "b.png").chmod(0)
    if os.access(photos / "b.png", os.R_OK):
        pytest.skip("this user can read all files")
    dataset = load(photos, max_bad=0.5)
    assert [path for path, _ in dataset.skipped] == [str(photos / "b.png")]


def test_checksum_depends_on_names_and_content_not_on_size(photos):
    write_image(photos / "a.png")
    path = write_image(photos / "b.png")
    before = load(photos).checksum
    assert load(photos, size=4).checksum == before
    path.write_bytes(path.read_bytes() + b"x")
    content = load(photos).checksum
    path.rename(photos / "c.png")
    assert len({before, content, load(photos).checksum}) == 3


def test_split_is_a_sub_folder(photos):
    write_image(photos / "train/a/1.png")
    write_image(photos / "train/b/2.png")
    assert load(photos, split="train").classes == ["a", "b"]


def test_real_folder(real):
    folder = real("cifar10_folder", "frog")
    dataset = load(folder)
    assert dataset.images.shape == (2000, 32, 32, 3) and dataset.skipped == []


# ---- files of other formats


def unread_lines(caplog):
    return [line for line in caplog.messages if "not read" in line]


def test_unread_image_files_are_counted_by_suffix_in_one_line(photos, caplog, monkeypatch):
    write_image(photos / "a.jpg")
    for name in ("b.CR2", "sub/c.cr2", "d.avif", "e.svg", "notes.txt", ".hidden.nef"):
        write(photos / name, b"x")
    assert len(load(photos).images) == 1 == len(load(photos).images)
    assert unread_lines(caplog) == [
        f"{photos}: 4 image files are not read: 2 .cr2, 1 .avif, 1 .svg; convert them to PNG or "
        "JPEG"
    ]
    caplog.clear()
    monkeypatch.setattr(images, "can_read_heif", lambda: False)
    write(photos / "f.HEIC", b"x")
    load(photos)
    (line,) = unread_lines(caplog)
    assert "5 image files" in line and "1 .heic" in line and "install the extra heic" in line


def test_folder_of_unread_files_only_names_them(photos, monkeypatch):
    monkeypatch.setattr(images, "can_read_heif", lambda: False)
    for i in range(3):
        write(photos / f"{i}.heic", b"x")
    message = error_of(load, photos)
    assert "contains no images" in message and "3 .heic" in message and "extra heic" in message
    assert "1 image file is not read: 1 .heic" in error_of(load, photos / "0.heic")


def test_heic_and_jfif_are_read(photos, caplog):
    pillow_heif.register_heif_opener()
    write_image(photos / "a.heic", (32, 32, 3), format="HEIF")
    write_image(photos / "b.jfif", (32, 32, 3), format="JPEG")
    write_image(photos / "c.jpe", (32, 32, 3), format="JPEG")
    assert load(photos).images.shape == (3, 32, 32, 3)
    assert not unread_lines(caplog)
