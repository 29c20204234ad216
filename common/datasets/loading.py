"""Loads datasets, or folders of images, as uint8 images (n, h, w, c) and labels.

Files that are missing in DATA_ROOT are taken from system packages or downloaded; data/README.md
lists the datasets and their files.
"""

import dataclasses
import difflib
import functools
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import UserError, images
from common.datasets import download, folders, formats

MAX_CHECKSUM_BYTES = 64 << 20  # of pixels
# Debian's package dataset-fashion-mnist
SYSTEM_COPIES = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}

# Arguments folders, size and max_bad, and results, of `folders.read`.
Reader = Callable[
    [list[Path], int | tuple[int, int] | None, float],
    tuple[np.ndarray, list[folders.File], list[tuple[str, str]]],
]


@dataclass(frozen=True)
class Images:
    """A dataset in memory.

    images (n, h, w, c), c is 1 or 3; labels (n,), indices into classes; paths (n,), made up for
    datasets that are arrays; skipped: (path, reason) of unreadable files; checksum of the data,
    whatever size it is loaded in.
    """

    images: np.ndarray
    labels: np.ndarray | None
    paths: list[str]
    classes: list[str] | None
    skipped: list[tuple[str, str]]
    checksum: str


def load(
    name: str,
    split: str = "",
    root: str | Path | None = None,
    path: str | Path | None = None,
    size: int | tuple[int, int] | None = None,
    max_bad: float = 0.01,
    read: Reader = folders.read,
) -> Images:
    """Loads a dataset by name, one of NAMES.

    split: "train", "test", "all" (train, then test; also "") or several as in "all+extra"; for a
    collection its tag, for a folder a sub-folder. path: the folder of images, for "folder" and
    collections. size: see `images.resize`; None: the size of the images, or folders.DEFAULT_SIZE if
    they differ. max_bad: largest fraction of unreadable files that is skipped. read: function that
    reads folders. Raises UserError for missing and damaged files.
    """
    if name not in NAMES:
        similar = difflib.get_close_matches(name, NAMES, 1)
        hint = f"did you mean {similar[0]}" if similar else f"expected one of {', '.join(NAMES)}"
        raise UserError(f"dataset.name {name} is not known: {hint}")
    if not 0 <= max_bad <= 1:
        raise UserError(f"dataset.max_bad is {max_bad}: expected a fraction between 0 and 1")
    if path and name in _ARRAYS:
        raise UserError(f"dataset.path is for folders of images: {name} is loaded from DATA_ROOT")
    root = download.data_root(root)
    size = tuple(size) if isinstance(size, list) else size
    if name in _ARRAYS:
        return _load_arrays(name, split, root, size)
    if path:
        return _load_folders([Path(path).expanduser() / split], size, max_bad, read)
    if name == "folder":
        raise UserError("dataset.name folder needs dataset.path, the folder of images")
    if name in _COLLECTIONS:
        return _load_folders([_collection(name, split, root)], size, max_bad, read)
    splits = choose_splits(name, split, _IMAGENETTE_FILES)
    paths = find(name, root, splits, _IMAGENETTE_FILES)
    dataset = _load_folders([paths[part][0] for part in splits], size, max_bad, read)
    classes = [_IMAGENETTE_CLASSES.get(code, code) for code in dataset.classes or []]
    return dataclasses.replace(dataset, classes=classes or None)


def choose_splits(name: str, split: str, known: Iterable[str]) -> list[str]:
    """The names of the known splits in `split`, see `load`; raises UserError."""
    chosen = []
    for part in (split or "all").split("+"):
        if part == "all":
            chosen += [other for other in known if other != "extra"]
        elif part in known:
            chosen.append(part)
        else:
            expected = f"{', '.join(known)}, all, or several joined by +"
            raise UserError(f"dataset.split of {name} is {part!r}: expected {expected}")
    return list(dict.fromkeys(chosen))


def find(
    name: str, root: Path, splits: list[str], files: dict[str, list[str]]
) -> dict[str, list[Path]]:
    """The paths of the files of these splits; downloads missing ones. Raises UserError.

    files: for every split, relative to root.
    """

    def missing(splits: Iterable[str]) -> list[str]:
        return [file for split in splits for file in files[split] if not _locate(name, root, file)]

    if missing(splits):
        try:
            download.get(name, root, missing(splits))
            reason = "move the incomplete files away to download them again"
        except UserError as error:
            reason = str(error)
        if absent := missing(splits):
            listed = ", ".join(absent[:4]) + (f" and {len(absent) - 4} more" * (len(absent) > 4))
            complete = [split for split in files if files[split] and not missing([split])]
            note = f" (split {' and '.join(complete)} is complete)" if complete else ""
            raise UserError(
                f"{name} lacks {listed} in {root}{note}: put the files there, run make data "
                f"DATASET={name} on a machine with network, or set DATA_ROOT; {reason}"
            )
    return {split: [_locate(name, root, file) for file in files[split]] for split in splits}


def _locate(name: str, root: Path, file: str) -> Path | None:
    unpacked = file.removesuffix(".gz").removesuffix(".bz2")  # as by torchvision
    system = [SYSTEM_COPIES[name] / Path(file).name] if name in SYSTEM_COPIES else []
    return next((path for path in (root / file, root / unpacked, *system) if path.exists()), None)


# ---- datasets in official formats


def _load_arrays(name: str, split: str, root: Path, size: int | tuple[int, int] | None) -> Images:
    source = _ARRAYS[name]
    splits = choose_splits(name, split, source.files)
    files = find(name, root, splits, source.files)
    parts, paths = [], []
    for part in splits:
        pixels, labels = source.read(files[part])
        where = files[part][0] if files[part] else name
        if len(pixels) != len(labels) or len(pixels) == 0:
            raise UserError(f"{where}: {len(pixels)} images, but {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= len(source.classes):
            expected = f"0 to {len(source.classes) - 1}"
            raise UserError(
                f"{where}: labels {labels.min()} to {labels.max()}: expected {expected}"
            )
        parts.append((pixels, labels))
        paths += [f"{name}/{part}/{i:05d}" for i in range(len(pixels))]
    # a single part is not concatenated, which would copy it
    pixels, labels = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    checksum = _checksum_arrays(pixels, labels)
    if size is not None:
        pixels = np.stack([images.resize(image, size) for image in pixels])
    return Images(pixels, labels.astype(np.int64), paths, list(source.classes), [], checksum)


def _checksum_arrays(pixels: np.ndarray, labels: np.ndarray) -> str:
    """sha256 of shape, labels and pixels; of every k-th image above MAX_CHECKSUM_BYTES."""
    step = math.ceil(pixels.nbytes / MAX_CHECKSUM_BYTES)
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(labels.astype("<i8").tobytes())
    digest.update(np.ascontiguousarray(pixels[::step]))
    return digest.hexdigest()


def _read_digits(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None], digits.target


@dataclass(frozen=True)
class _Arrays:
    read: Callable[[list[Path]], tuple[np.ndarray, np.ndarray]]
    files: dict[str, list[str]]  # split -> paths relative to DATA_ROOT
    classes: list[str]


def _numbers(n: int) -> list[str]:
    return [str(label) for label in range(n)]


def _idx_files(folder: str) -> dict[str, list[str]]:
    kinds = ("images-idx3", "labels-idx1")
    prefixes = {"train": "train", "test": "t10k"}
    return {
        split: [f"{folder}/raw/{prefix}-{kind}-ubyte.gz" for kind in kinds]
        for split, prefix in prefixes.items()
    }


_CLOTHES = "T-shirt,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot".split(",")
_CIFAR10 = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck".split(",")

_ARRAYS = {
    "digits": _Arrays(_read_digits, {"all": []}, _numbers(10)),
    "mnist": _Arrays(formats.idx, _idx_files("MNIST"), _numbers(10)),
    "fashion_mnist": _Arrays(formats.idx, _idx_files("FashionMNIST"), _CLOTHES),
    "usps": _Arrays(
        formats.libsvm, {"train": ["USPS/usps.bz2"], "test": ["USPS/usps.t.bz2"]}, _numbers(10)
    ),
    "svhn": _Arrays(
        formats.svhn,
        {split: [f"SVHN/{split}_32x32.mat"] for split in ("train", "test", "extra")},
        _numbers(10),
    ),
    "affnist_test": _Arrays(formats.affnist, {"test": ["affNIST_test.mat"]}, _numbers(10)),
    "frgc": _Arrays(formats.frgc, {"all": ["FRGC/data4torch.h5"]}, _numbers(20)),
    "cifar10": _Arrays(
        functools.partial(formats.cifar, n_labels=1),
        {
            "train": [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)],
            "test": ["cifar-10-batches-bin/test_batch.bin"],
        },
        _CIFAR10,
    ),
    "cifar100": _Arrays(
        functools.partial(formats.cifar, n_labels=2),
        {split: [f"cifar-100-binary/{split}.bin"] for split in ("train", "test")},
        _numbers(100),
    ),
    "imagenet32": _Arrays(
        formats.imagenet32,
        {
            "train": [f"Imagenet32_train_npz/train_data_batch_{i}.npz" for i in range(1, 11)],
            "test": ["Imagenet32_val_npz/val_data.npz"],
        },
        _numbers(1000),
    ),
}


# ---- datasets that are folders of images

_COLLECTIONS = ("instagram", "megadepth")
_IMAGENETTE_FILES = {"train": ["imagenette2-160/train"], "test": ["imagenette2-160/val"]}
_IMAGENETTE_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
NAMES = (*_ARRAYS, "folder", "imagenette", *_COLLECTIONS)


def _collection(name: str, tag: str, root: Path) -> Path:
    if not tag or Path(tag).name != tag:
        known = sorted(path.parent.name for path in (root / name).glob("*/train"))
        expected = f"expected one in {root / name} ({', '.join(known) or 'none yet'})"
        raise UserError(f"dataset.split names the collection of {name}, it is {tag!r}: {expected}")
    return find(name, root, [tag], {tag: [f"{name}/{tag}/train"]})[tag][0]


def _load_folders(
    paths: list[Path], size: int | tuple[int, int] | None, max_bad: float, read: Reader
) -> Images:
    pixels, files, skipped = read(paths, size, max_bad)
    labels, classes = folders.classes(files)
    names = [str(path) for path, _ in files]
    return Images(pixels, labels, names, classes, skipped, folders.checksum(files))
