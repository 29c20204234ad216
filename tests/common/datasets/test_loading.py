import bz2
import gzip
import struct

import h5py
import numpy as np
import pytest
import scipy.io

from common import datasets
from common.datasets import loading
from tests.common.datasets.files import error_of, write, write_image
from tests.entry_scripts import PickleBomb

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


def test_digits_need_no_files():
    digits = datasets.load("digits")
    assert digits.images.shape == (1797, 8, 8, 1) and digits.images.dtype == np.uint8
    assert digits.images.max() == 255 and digits.labels.dtype == np.int64
    assert digits.paths[12] == "digits/all/00012" and digits.classes == list("0123456789")


def test_mnist_concatenates_train_and_test(root):
    train, _ = mnist(root, "train", 7)
    test, labels = mnist(root, "t10k", 5)
    everything = datasets.load("mnist", root=root)
    assert np.array_equal(everything.images[..., 0], np.concatenate([train, test]))
    assert everything.paths[7] == "mnist/test/00000"
    only = datasets.load("mnist", "test", root)
    assert np.array_equal(only.images[..., 0], test) and only.labels.tolist() == labels.tolist()
    assert datasets.load("mnist", "test+train", root).paths[0] == "mnist/test/00000"


def test_unpacked_idx_files_load_writable(root):
    images, _ = mnist(root)
    for path in (root / "MNIST/raw").iterdir():
        write(path.with_suffix(""), gzip.decompress(path.read_bytes()))
        path.unlink()
    dataset = datasets.load("mnist", "test", root).images
    assert np.array_equal(dataset[..., 0], images) and dataset.flags.writeable


def test_root_defaults_to_data_root(root, monkeypatch):
    mnist(root)
    monkeypatch.setenv("DATA_ROOT", str(root))
    assert len(datasets.load("mnist", "test").images) == 5


def test_system_copy_is_used_if_root_lacks_the_files(root, tmp_path, monkeypatch):
    mnist(tmp_path, folder="copy")
    monkeypatch.setattr(loading, "SYSTEM_COPIES", {"fashion_mnist": tmp_path / "copy/raw"})
    assert len(datasets.load("fashion_mnist", "test", root).images) == 5


def test_missing_split_names_files_and_three_remedies(root):
    mnist(root, "t10k")
    line = error_of(datasets.load, "mnist", root=root)
    assert "train-images-idx3-ubyte.gz, MNIST/raw/train-labels-idx1-ubyte.gz" in line
    assert "split test is complete" in line
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
def test_damaged_idx_file_is_refused_by_name(root, content, reason):
    mnist(root)
    path = write(root / "MNIST/raw/t10k-images-idx3-ubyte.gz", content)
    line = error_of(datasets.load, "mnist", "test", root)
    assert str(path) in line and reason in line


def test_labels_above_the_classes_are_refused(root):
    mnist(root)
    labels = np.array([0, 1, 2, 3, 10], np.uint8)
    write(root / "MNIST/raw/t10k-labels-idx1-ubyte.gz", gzip.compress(idx(labels)))
    assert "labels 0 to 10: expected 0 to 9" in error_of(datasets.load, "mnist", "test", root)


def usps(root, *lines):
    text = "\n".join(lines).encode() + b"\n"
    return write(root / "USPS/usps.t.bz2", bz2.compress(text))


def test_usps(root):
    usps(root, "1 1:-1 2:1 3:0", "10 256:1")
    dataset = datasets.load("usps", "test", root)
    assert dataset.images.shape == (2, 16, 16, 1) and dataset.labels.tolist() == [0, 9]
    assert dataset.images[0, 0, :4, 0].tolist() == [0, 255, 128, 128]  # 127.5 goes to the even one
    assert dataset.images[1, 15, 15, 0] == 255


@pytest.mark.parametrize("line", ["1 1:2", "1 1:nan", "1 257:1", "hello", "1 0:1"])
def test_usps_with_invalid_values_is_refused(root, line):
    path = usps(root, line)
    assert str(path) in error_of(datasets.load, "usps", "test", root)


def test_cut_usps_file_is_refused(root):
    path = usps(root, *["1 1:1"] * 100)
    path.write_bytes(path.read_bytes()[:-10])
    assert str(path) in error_of(datasets.load, "usps", "test", root)


def svhn(root, split, n):
    images = RNG.integers(0, 256, (n, 32, 32, 3), np.uint8)
    path = root / f"SVHN/{split}_32x32.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.arange(1, n + 1)[:, None].astype(np.uint8)
    scipy.io.savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": labels})
    return images


def test_svhn_labels_10_as_0_and_loads_extra_on_request(root):
    parts = [svhn(root, split, n) for split, n in (("train", 10), ("test", 2), ("extra", 3))]
    assert np.array_equal(datasets.load("svhn", root=root).images, np.concatenate(parts[:2]))
    dataset = datasets.load("svhn", "all+extra", root)
    assert np.array_equal(dataset.images, np.concatenate(parts))
    assert dataset.labels[9] == 0 and len(datasets.load("svhn", "extra", root).images) == 3


def test_cut_mat_file_is_refused(root):
    svhn(root, "test", 3)
    path = root / "SVHN/test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in error_of(datasets.load, "svhn", "test", root)


def test_mat_file_without_key_is_refused(root):
    path = root / "SVHN/test_32x32.mat"
    path.parent.mkdir(parents=True)
    scipy.io.savemat(path, {"y": np.ones((3, 1))})
    assert "no key 'X'" in error_of(datasets.load, "svhn", "test", root)


def test_cifar(root):
    images = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
    rows = images.transpose(0, 3, 1, 2).reshape(2, 3072)
    labels = np.array([[3], [9]], np.uint8)
    write(root / "cifar-10-batches-bin/test_batch.bin", np.hstack([labels, rows]).tobytes())
    dataset = datasets.load("cifar10", "test", root)
    assert np.array_equal(dataset.images, images)
    assert [dataset.classes[label] for label in dataset.labels] == ["cat", "truck"]
    both = np.hstack([labels, labels * 10, rows])  # coarse, then fine
    write(root / "cifar-100-binary/test.bin", both.tobytes())
    dataset = datasets.load("cifar100", "test", root)
    assert np.array_equal(dataset.images, images) and dataset.labels.tolist() == [30, 90]


def test_cut_cifar_file_is_refused(root):
    write(root / "cifar-10-batches-bin/test_batch.bin", bytes(3073 * 2 - 1))
    assert "expected a multiple of 3073" in error_of(datasets.load, "cifar10", "test", root)


def test_affnist(root):
    images = RNG.integers(0, 256, (4, 40, 40), np.uint8)
    root.mkdir()
    content = {"image": images.reshape(4, 1600).T, "label_int": np.arange(4, dtype=np.uint8)}
    scipy.io.savemat(root / "affNIST_test.mat", {"affNISTdata": content})
    dataset = datasets.load("affnist_test", root=root)
    assert np.array_equal(dataset.images[..., 0], images) and dataset.labels.tolist() == [
        0,
        1,
        2,
        3,
    ]


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
    dataset = datasets.load("frgc", root=root)
    assert np.array_equal(dataset.images, data.transpose(0, 3, 2, 1))
    assert dataset.labels.tolist() == [0, 1, 0]


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
def test_h5_file_with_other_content_is_refused(root, content, reason):
    path = frgc(root, **content)
    line = error_of(datasets.load, "frgc", root=root)
    assert str(path) in line and reason in line


def test_cut_h5_file_is_refused(root):
    path = frgc(root, data=DATA, labels=np.arange(3))
    path.write_bytes(path.read_bytes()[:4000])
    assert str(path) in error_of(datasets.load, "frgc", root=root)


def test_imagenet32(root):
    images = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
    path = root / "Imagenet32_val_npz/val_data.npz"
    path.parent.mkdir(parents=True)
    rows = images.transpose(0, 3, 1, 2).reshape(2, 3072)
    np.savez(path, data=rows, labels=np.array([1, 1000]))
    dataset = datasets.load("imagenet32", "test", root)
    assert np.array_equal(dataset.images, images) and dataset.labels.tolist() == [0, 999]


def test_pickle_in_npz_is_not_loaded(root, tmp_path):
    bomb = PickleBomb(tmp_path / "harm")
    path = root / "Imagenet32_val_npz/val_data.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, data=np.array([bomb], object), labels=np.array([1]))
    assert str(path) in error_of(datasets.load, "imagenet32", "test", root)
    assert not bomb.path.exists()


def test_size_resizes_and_keeps_the_checksum():
    small = datasets.load("digits", size=4)
    assert small.images.shape == (1797, 4, 4, 1)
    assert small.checksum == datasets.load("digits").checksum


def test_checksum_depends_on_every_pixel_and_label(root):
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
    "args, options, message",
    [
        (("mnits",), {}, "did you mean mnist"),
        (("zzz",), {}, "expected one of digits"),
        (("mnist", "validation"), {}, "'validation': expected train, test, all"),
        (("mnist",), {"path": "photos"}, "dataset.path is for folders"),
        (("folder",), {}, "needs dataset.path"),
        (("folder",), {"path": ""}, "needs dataset.path"),
        (("digits",), {"max_bad": float("nan")}, "dataset.max_bad"),
        (("digits",), {"max_bad": 1.5}, "dataset.max_bad"),
        (("instagram",), {}, "dataset.split names the collection"),
    ],
)
def test_wrong_argument_is_named(root, args, options, message):
    assert message in error_of(datasets.load, *args, root=root, **options)


def test_collection_loads_by_tag_and_by_path(root):
    write_image(root / "instagram/santaphoto/train/1.jpg")
    assert len(datasets.load("instagram", "santaphoto", root).images) == 1
    path = root / "instagram/santaphoto/train"
    assert len(datasets.load("instagram", path=path).images) == 1
    assert "(santaphoto)" in error_of(datasets.load, "instagram", "", root)
    assert "put the files there" in error_of(datasets.load, "megadepth", "firenze", root)


def test_imagenette_has_class_names_in_all_splits(root):
    for part in ("train", "val"):
        for code in ("n03888257", "n01440764"):
            write_image(root / f"imagenette2-160/{part}/{code}/1.JPEG", format="JPEG")
    dataset = datasets.load("imagenette", root=root)
    assert dataset.classes == ["tench", "parachute"] and dataset.labels.tolist() == [0, 1, 0, 1]
    assert "val" in datasets.load("imagenette", "test", root).paths[0]


# ---- real data, if available


def test_real_mnist(real):
    real("MNIST", "raw", "t10k-images-idx3-ubyte.gz")
    dataset = datasets.load("mnist", "test")
    assert dataset.images.shape == (10000, 28, 28, 1)
    assert dataset.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_real_fashion_mnist(real):
    real("FashionMNIST")
    assert np.bincount(datasets.load("fashion_mnist").labels).tolist() == [7000] * 10
