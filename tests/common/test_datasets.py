import bz2
import gzip
import logging
import os
import struct
import zlib

import h5py
import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image

from common import UserError, datasets, download

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_sources(tmp_path, monkeypatch):
    """Nothing on the system, nothing to download: what a test wants it makes."""
    listed = tmp_path / "sources.yml"
    manual = {name: {"manual": "no network in tests"} for name in datasets.NAMES}
    listed.write_text(
        yaml.safe_dump(manual | {"bsds500": manual["mnist"], "camvid": {"files": []}})
    )
    monkeypatch.setattr(download, "SOURCES", listed)
    monkeypatch.setattr(datasets, "SYSTEM_COPIES", {})


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def idx(array, magic=None):
    header = struct.pack(">I", magic or 0x800 + array.ndim)
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist(root, prefix="t10k", n=5, n_labels=None, folder="MNIST"):
    images = RNG.integers(0, 256, (n, 28, 28), np.uint8)
    labels = (np.arange(n_labels or n) % 10).astype(np.uint8)
    raw = root / folder / "raw"
    write(raw / f"{prefix}-images-idx3-ubyte.gz", gzip.compress(idx(images)))
    write(raw / f"{prefix}-labels-idx1-ubyte.gz", gzip.compress(idx(labels)))
    return images, labels


def picture(path, shape=(6, 8, 3), mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(RNG.integers(0, 256, shape, np.uint8))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def refusal(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        datasets.load(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- arrays


def test_digits_need_no_file():
    digits = datasets.load("digits")
    assert digits.images.shape == (1797, 8, 8, 1) and digits.images.dtype == np.uint8
    assert digits.images.max() == 255 and digits.labels.dtype == np.int64
    assert digits.paths[12] == "digits/all/00012" and digits.classes == list("0123456789")


def test_mnist_is_train_then_test(root):
    train, _ = mnist(root, "train", 7)
    test, labels = mnist(root, "t10k", 5)
    everything = datasets.load("mnist", root=root)
    assert np.array_equal(everything.images[..., 0], np.concatenate([train, test]))
    assert everything.paths[7] == "mnist/test/00000"
    only = datasets.load("mnist", "test", root)
    assert np.array_equal(only.images[..., 0], test) and only.labels.tolist() == labels.tolist()
    assert datasets.load("mnist", "test+train", root).paths[0] == "mnist/test/00000"


def test_unpacked_idx_files_are_found_and_writable(root):
    images, _ = mnist(root)
    for path in (root / "MNIST/raw").iterdir():
        write(path.with_suffix(""), gzip.decompress(path.read_bytes()))
        path.unlink()
    loaded = datasets.load("mnist", "test", root).images
    assert np.array_equal(loaded[..., 0], images) and loaded.flags.writeable


def test_data_root_comes_from_the_environment_where_none_is_given(root, monkeypatch):
    mnist(root)
    monkeypatch.setenv("DATA_ROOT", str(root))
    assert len(datasets.load("mnist", "test").images) == 5


def test_the_systems_copy_is_used_where_the_root_has_none(root, tmp_path, monkeypatch):
    mnist(tmp_path, folder="copy")
    monkeypatch.setattr(datasets, "SYSTEM_COPIES", {"fashion_mnist": tmp_path / "copy/raw"})
    assert len(datasets.load("fashion_mnist", "test", root).images) == 5


def test_a_missing_part_names_the_files_the_split_that_is_there_and_three_ways_out(root):
    mnist(root, "t10k")
    line = refusal("mnist", root=root)
    assert "train-images-idx3-ubyte.gz, MNIST/raw/train-labels-idx1-ubyte.gz" in line
    assert "split test is there" in line
    assert "put the files there" in line and "make data DATASET=mnist" in line
    assert "set DATA_ROOT" in line


@pytest.mark.parametrize(
    "content, reason",
    [
        (gzip.compress(idx(np.zeros((5, 28, 28), np.uint8), magic=0x801)), "magic number"),
        (gzip.compress(idx(np.zeros((5, 28, 28), np.uint8))[:-1]), "3919 values"),
        (gzip.compress(idx(np.zeros((5, 28, 28), np.uint8)) + b"\0"), "3921 values"),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "damaged"),
        (gzip.compress(idx(np.zeros((5, 28, 28), np.uint8)))[:-9], "damaged"),
        (b"<html>", "damaged"),
        (b"", "magic number"),
        (gzip.compress(idx(np.zeros((4, 28, 28), np.uint8))), "4 images, but 5 labels"),
        (gzip.compress(idx(np.zeros((0, 28, 28), np.uint8))), "0 images"),
    ],
)
def test_a_damaged_idx_file_is_refused_by_name(root, content, reason):
    mnist(root)
    path = write(root / "MNIST/raw/t10k-images-idx3-ubyte.gz", content)
    line = refusal("mnist", "test", root)
    assert str(path) in line and reason in line


def test_labels_beyond_the_classes_are_refused(root):
    mnist(root)
    labels = np.array([0, 1, 2, 3, 10], np.uint8)
    write(root / "MNIST/raw/t10k-labels-idx1-ubyte.gz", gzip.compress(idx(labels)))
    assert "labels 0 to 10, not 0 to 9" in refusal("mnist", "test", root)


def usps(root, *lines):
    text = "\n".join(lines).encode() + b"\n"
    return write(root / "USPS/usps.t.bz2", bz2.compress(text))


def test_usps_text_becomes_pixels(root):
    usps(root, "1 1:-1 2:1 3:0", "10 256:1")
    loaded = datasets.load("usps", "test", root)
    assert loaded.images.shape == (2, 16, 16, 1) and loaded.labels.tolist() == [0, 9]
    assert loaded.images[0, 0, :4, 0].tolist() == [0, 255, 128, 128]  # 127.5 goes to the even one
    assert loaded.images[1, 15, 15, 0] == 255


@pytest.mark.parametrize("line", ["1 1:2", "1 1:nan", "1 257:1", "hello", "1 0:1"])
def test_usps_text_with_other_values_is_refused(root, line):
    path = usps(root, line)
    assert str(path) in refusal("usps", "test", root)


def test_a_cut_usps_file_is_refused(root):
    path = usps(root, *["1 1:1"] * 100)
    path.write_bytes(path.read_bytes()[:-10])
    assert str(path) in refusal("usps", "test", root)


def svhn(root, split, n):
    images = RNG.integers(0, 256, (n, 32, 32, 3), np.uint8)
    path = root / f"SVHN/{split}_32x32.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.arange(1, n + 1)[:, None].astype(np.uint8)
    scipy.io.savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": labels})
    return images


def test_svhn_calls_the_tenth_digit_zero_and_takes_extra_only_when_asked(root):
    parts = [svhn(root, split, n) for split, n in (("train", 10), ("test", 2), ("extra", 3))]
    assert np.array_equal(datasets.load("svhn", root=root).images, np.concatenate(parts[:2]))
    loaded = datasets.load("svhn", "all+extra", root)
    assert np.array_equal(loaded.images, np.concatenate(parts))
    assert loaded.labels[9] == 0 and len(datasets.load("svhn", "extra", root).images) == 3


def test_a_cut_mat_file_is_refused(root):
    svhn(root, "test", 3)
    path = root / "SVHN/test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in refusal("svhn", "test", root)


def test_a_mat_file_without_its_key_is_refused(root):
    path = root / "SVHN/test_32x32.mat"
    path.parent.mkdir(parents=True)
    scipy.io.savemat(path, {"y": np.ones((3, 1))})
    assert "no key 'X'" in refusal("svhn", "test", root)


def test_cifar_binary_records(root):
    images = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
    rows = images.transpose(0, 3, 1, 2).reshape(2, 3072)
    labels = np.array([[3], [9]], np.uint8)
    write(root / "cifar-10-batches-bin/test_batch.bin", np.hstack([labels, rows]).tobytes())
    loaded = datasets.load("cifar10", "test", root)
    assert np.array_equal(loaded.images, images)
    assert [loaded.classes[label] for label in loaded.labels] == ["cat", "truck"]
    both = np.hstack([labels, labels * 10, rows])  # coarse, then fine
    write(root / "cifar-100-binary/test.bin", both.tobytes())
    loaded = datasets.load("cifar100", "test", root)
    assert np.array_equal(loaded.images, images) and loaded.labels.tolist() == [30, 90]


def test_a_cut_cifar_file_is_refused(root):
    write(root / "cifar-10-batches-bin/test_batch.bin", bytes(3073 * 2 - 1))
    assert "expected a multiple of 3073" in refusal("cifar10", "test", root)


def test_affnist(root):
    images = RNG.integers(0, 256, (4, 40, 40), np.uint8)
    root.mkdir()
    content = {"image": images.reshape(4, 1600).T, "label_int": np.arange(4, dtype=np.uint8)}
    scipy.io.savemat(root / "affNIST_test.mat", {"affNISTdata": content})
    loaded = datasets.load("affnist_test", root=root)
    assert np.array_equal(loaded.images[..., 0], images) and loaded.labels.tolist() == [0, 1, 2, 3]


def frgc(root, **content):
    path = root / "FRGC/data4torch.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
    return path


def test_frgc_has_channels_last_and_consecutive_labels(root):
    data = RNG.integers(0, 256, (3, 3, 32, 32)).astype(np.float32)
    frgc(root, data=data, labels=np.array([[4, 9, 4]]))
    loaded = datasets.load("frgc", root=root)
    assert np.array_equal(loaded.images, data.transpose(0, 3, 2, 1))
    assert loaded.labels.tolist() == [0, 1, 0]


DATA = np.full((3, 3, 32, 32), 255.0)


@pytest.mark.parametrize(
    "content, reason",
    [
        ({"labels": np.arange(3)}, "no key 'data'"),
        ({"data": DATA}, "no key 'labels'"),
        ({"data": DATA, "labels": np.arange(2)}, "3 images, but 2 labels"),
        ({"data": DATA / 255, "labels": np.arange(3)}, "values up to 1.0"),
        ({"data": DATA * np.nan, "labels": np.arange(3)}, "values up to nan"),
        ({"data": DATA[:, 0], "labels": np.arange(3)}, "not (n, 3, w, h)"),
    ],
)
def test_an_h5_file_with_other_content_is_refused(root, content, reason):
    path = frgc(root, **content)
    line = refusal("frgc", root=root)
    assert str(path) in line and reason in line


def test_a_cut_h5_file_is_refused(root):
    path = frgc(root, data=DATA, labels=np.arange(3))
    path.write_bytes(path.read_bytes()[:4000])
    assert str(path) in refusal("frgc", root=root)


def test_imagenet32_npz(root):
    images = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
    path = root / "Imagenet32_val_npz/val_data.npz"
    path.parent.mkdir(parents=True)
    rows = images.transpose(0, 3, 1, 2).reshape(2, 3072)
    np.savez(path, data=rows, labels=np.array([1, 1000]))
    loaded = datasets.load("imagenet32", "test", root)
    assert np.array_equal(loaded.images, images) and loaded.labels.tolist() == [0, 999]


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_inside_an_npz_is_never_loaded(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = root / "Imagenet32_val_npz/val_data.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, data=np.array([Malicious()], object), labels=np.array([1]))
    assert str(path) in refusal("imagenet32", "test", root)
    assert not (tmp_path / "executed").exists()


def test_a_size_resizes_and_leaves_the_checksum():
    small = datasets.load("digits", size=4)
    assert small.images.shape == (1797, 4, 4, 1)
    assert small.checksum == datasets.load("digits").checksum


def test_the_checksum_sees_one_pixel_and_one_label(root):
    images, labels = mnist(root)
    before = datasets.load("mnist", "test", root).checksum
    assert datasets.load("mnist", "test", root).checksum == before
    images[3, 5, 5] ^= 1
    write(root / "MNIST/raw/t10k-images-idx3-ubyte.gz", gzip.compress(idx(images)))
    changed = datasets.load("mnist", "test", root).checksum
    labels[0] ^= 1
    write(root / "MNIST/raw/t10k-labels-idx1-ubyte.gz", gzip.compress(idx(labels)))
    assert len({before, changed, datasets.load("mnist", "test", root).checksum}) == 3


@pytest.mark.parametrize(
    "args, options, words",
    [
        (("mnits",), {}, "did you mean mnist"),
        (("zzz",), {}, "expected one of digits"),
        (("mnist", "validation"), {}, "'validation', expected train, test, all"),
        (("mnist",), {"path": "photos"}, "dataset.path is for folders"),
        (("folder",), {}, "needs dataset.path"),
        (("folder",), {"path": ""}, "needs dataset.path"),
        (("digits",), {"max_bad": float("nan")}, "dataset.max_bad"),
        (("digits",), {"max_bad": 1.5}, "dataset.max_bad"),
        (("instagram",), {}, "dataset.split names the collection"),
    ],
)
def test_a_wrong_argument_is_named(root, args, options, words):
    assert words in refusal(*args, root=root, **options)


# ---- folders


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


def test_a_collection_is_found_by_its_tag_and_by_its_path(root):
    picture(root / "instagram/santaphoto/train/1.jpg")
    assert len(datasets.load("instagram", "santaphoto", root).images) == 1
    path = root / "instagram/santaphoto/train"
    assert len(datasets.load("instagram", path=path).images) == 1
    assert "(santaphoto)" in refusal("instagram", "", root)
    assert "put the files there" in refusal("megadepth", "firenze", root)


def test_imagenette_has_its_classes_by_name_across_splits(root):
    for part in ("train", "val"):
        for code in ("n03888257", "n01440764"):
            picture(root / f"imagenette2-160/{part}/{code}/1.JPEG", format="JPEG")
    loaded = datasets.load("imagenette", root=root)
    assert loaded.classes == ["tench", "parachute"] and loaded.labels.tolist() == [0, 1, 0, 1]
    assert "val" in datasets.load("imagenette", "test", root).paths[0]


# ---- segmentations


def bsds(root, shape=(6, 8)):
    cells = np.empty((1, 2), object)
    for i in range(2):
        cells[0, i] = {"Segmentation": np.full(shape, i + 1, np.uint16)}
    for split in ("train", "val", "test"):
        picture(root / f"BSDS500/data/images/{split}/1.jpg")
        path = root / f"BSDS500/data/groundTruth/{split}/1.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {"groundTruth": cells})
    return path


def test_bsds_gives_every_annotator(root):
    bsds(root)
    loaded = datasets.segmentation("bsds500", root=root)
    assert len(loaded) == 3 and loaded.n_classes is None
    assert loaded.image(0).shape == (6, 8, 3)
    assert [truth.shape for truth in loaded.truths(0)] == [(6, 8), (6, 8)]
    assert [truth[0, 0] for truth in loaded.truths(2)] == [1, 2]
    assert len(datasets.segmentation("bsds500", "train+val", root)) == 2


@pytest.mark.parametrize("damage", ["cut", "shape", "key"])
def test_a_damaged_truth_is_refused_by_name(root, damage):
    path = bsds(root, (3, 3) if damage == "shape" else (6, 8))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:150])
    if damage == "key":
        scipy.io.savemat(path, {"other": 1})
    with pytest.raises(UserError, match=str(path)):
        datasets.segmentation("bsds500", "test", root).truths(0)


def test_a_missing_truth_and_a_missing_split_are_refused(root):
    bsds(root).unlink()
    with pytest.raises(UserError, match="groundTruth/test/1.mat"):
        datasets.segmentation("bsds500", "test", root)
    with pytest.raises(UserError, match="camvid lacks camvid/val, camvid/valannot"):
        datasets.segmentation("camvid", "val", root)
    with pytest.raises(UserError, match="none of bsds500"):
        datasets.segmentation("mnist")


def labels_png(path, values, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).convert(mode).save(path)


def test_camvid_has_eleven_classes_and_void(root):
    picture(root / "camvid/val/a.png", (1, 3, 3))
    labels_png(root / "camvid/valannot/a.png", [[0, 10, 11]])
    loaded = datasets.segmentation("camvid", "val", root)
    assert loaded.truths(0)[0].tolist() == [[0, 10, 11]]
    assert (loaded.n_classes, loaded.ignore) == (11, 11)
    labels_png(root / "camvid/valannot/a.png", [[0, 10, 12]])
    with pytest.raises(UserError, match="label 12, expected below 11"):
        loaded.truths(0)
    labels_png(root / "camvid/valannot/a.png", [[0, 10, 11]], "RGB")
    with pytest.raises(UserError, match="mode RGB"):
        loaded.truths(0)


def test_ade20k_counts_from_zero_and_ignores_what_nobody_named(root):
    picture(root / "ADEChallengeData2016/images/validation/a.jpg", (1, 3, 3))
    labels_png(root / "ADEChallengeData2016/annotations/validation/a.png", [[0, 1, 150]])
    loaded = datasets.segmentation("ade20k", "val", root)
    assert loaded.truths(0)[0].tolist() == [[255, 0, 149]]
    assert (loaded.n_classes, loaded.ignore) == (150, 255)


# ---- real data, where there is some


def real(*parts):
    path = download.data_root().joinpath(*parts)
    if "DATA_ROOT" not in os.environ or not path.exists():
        pytest.skip(f"DATA_ROOT has no {'/'.join(parts)}")
    return path


def test_real_mnist():
    real("MNIST", "raw", "t10k-images-idx3-ubyte.gz")
    loaded = datasets.load("mnist", "test")
    assert loaded.images.shape == (10000, 28, 28, 1)
    assert loaded.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_real_fashion_mnist():
    real("FashionMNIST")
    assert np.bincount(datasets.load("fashion_mnist").labels).tolist() == [7000] * 10


def test_real_folder():
    folder = real("cifar10_folder", "frog")
    loaded = load(folder)
    assert loaded.images.shape == (2000, 32, 32, 3) and loaded.skipped == []


def test_real_bsds():
    real("BSDS500")
    loaded = datasets.segmentation("bsds500", "train+val")
    assert len(loaded) == 300 and 4 <= len(loaded.truths(0)) <= 9


def test_real_camvid():
    real("camvid")
    loaded = datasets.segmentation("camvid", "val")
    assert len(loaded) == 101 and loaded.image(0).shape == (360, 480, 3)
    assert set(np.unique(loaded.truths(0)[0])) <= set(range(12))
