import bz2
import gzip
import os
import struct

import h5py
import numpy as np
import pytest
import scipy.io

from common import datasets
from common.datasets import loading
from tests.common.data_sets import picture, refusal, write

RNG = np.random.default_rng(0)


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
    monkeypatch.setattr(loading, "SYSTEM_COPIES", {"fashion_mnist": tmp_path / "copy/raw"})
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


# ---- real data, where there is some


def test_real_mnist(real):
    real("MNIST", "raw", "t10k-images-idx3-ubyte.gz")
    loaded = datasets.load("mnist", "test")
    assert loaded.images.shape == (10000, 28, 28, 1)
    assert loaded.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_real_fashion_mnist(real):
    real("FashionMNIST")
    assert np.bincount(datasets.load("fashion_mnist").labels).tolist() == [7000] * 10
