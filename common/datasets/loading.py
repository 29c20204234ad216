"""Every data set as numpy: uint8 images (n, h, w, c) and labels; a folder of images is one too.

What is not below DATA_ROOT is taken from the system's own copies, else downloaded.
data/README.md says where each set lies.
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

SAMPLE = 64 << 20  # bytes of pixels that a checksum reads at most
# Debian's package dataset-fashion-mnist
SYSTEM_COPIES = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}

# folders, size and max_bad as in `folders.read`, and what that gives back
Reader = Callable[
    [list[Path], int | tuple[int, int] | None, float],
    tuple[np.ndarray, list[folders.File], list[tuple[str, str]]],
]


@dataclass(frozen=True)
class Images:
    """images (n, h, w, c), c 1 or 3; labels (n,) into classes; paths (n,), of array sets invented.

    skipped holds (path, reason) of files that could not be read. checksum changes with the data
    and not with the size it is loaded in.
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
    """A data set by name, one of NAMES.

    split: "train", "test", "all" (what "" means: train, then test) or several as in "all+extra"; of
    a collection the tag, of a folder a sub-folder. path: the folder, for those that are one.
    size: see images.resize; None keeps the images' own, or takes folders.DEFAULT_SIZE where they
    differ. Bad files of a folder are skipped. read: what reads folders. Raises UserError for a
    share of bad files above max_bad, and for all that is missing or damaged.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1)
        expected = f"did you mean {near[0]}" if near else f"expected one of {', '.join(NAMES)}"
        raise UserError(f"dataset.name {name} is not known: {expected}")
    if not 0 <= max_bad <= 1:
        raise UserError(f"dataset.max_bad is {max_bad}, expected a share between 0 and 1")
    if path and name in _ARRAYS:
        raise UserError(f"dataset.path is for folders of images; {name} is found below DATA_ROOT")
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
    found = find(name, root, splits, _IMAGENETTE_FILES)
    loaded = _load_folders([found[part][0] for part in splits], size, max_bad, read)
    classes = [_IMAGENETTE_CLASSES.get(each, each) for each in loaded.classes or []]
    return dataclasses.replace(loaded, classes=classes or None)


def choose_splits(name: str, split: str, known: Iterable[str]) -> list[str]:
    """Those of the known splits that `split` names, as `load` has it. Raises UserError."""
    chosen = []
    for part in (split or "all").split("+"):
        if part == "all":
            chosen += [each for each in known if each != "extra"]
        elif part in known:
            chosen.append(part)
        else:
            expected = f"{', '.join(known)}, all, or several joined by +"
            raise UserError(f"dataset.split of {name} is {part!r}, expected {expected}")
    return list(dict.fromkeys(chosen))


def find(
    name: str, root: Path, splits: list[str], files: dict[str, list[str]]
) -> dict[str, list[Path]]:
    """Where the files of these splits are; fetches what is missing. Raises UserError.

    files: those of every split, below root.
    """

    def missing(splits: Iterable[str]) -> list[str]:
        return [file for split in splits for file in files[split] if not _place(name, root, file)]

    if absent := missing(splits):
        try:
            download.get(name, root, absent)
            reason = "what is there is not whole, move it away to download it again"
        except UserError as error:
            reason = str(error)
        if absent := missing(splits):
            listed = ", ".join(absent[:4]) + (f" and {len(absent) - 4} more" * (len(absent) > 4))
            there = [split for split in files if files[split] and not missing([split])]
            there = f" (split {' and '.join(there)} is there)" if there else ""
            raise UserError(
                f"{name} lacks {listed} in {root}{there}: put the files there, run make data "
                f"DATASET={name} where there is a network, or set DATA_ROOT; {reason}"
            )
    return {split: [_place(name, root, file) for file in files[split]] for split in splits}


def _place(name: str, root: Path, file: str) -> Path | None:
    bare = file.removesuffix(".gz").removesuffix(".bz2")  # unpacked by hand or by torchvision
    system = [SYSTEM_COPIES[name] / Path(file).name] if name in SYSTEM_COPIES else []
    return next((path for path in (root / file, root / bare, *system) if path.exists()), None)


# ---- sets in official formats


def _load_arrays(name: str, split: str, root: Path, size: int | tuple[int, int] | None) -> Images:
    source = _ARRAYS[name]
    splits = choose_splits(name, split, source.files)
    found = find(name, root, splits, source.files)
    parts, paths = [], []
    for part in splits:
        pixels, labels = source.read(found[part])
        where = found[part][0] if found[part] else name
        if len(pixels) != len(labels) or len(pixels) == 0:
            raise UserError(f"{where}: {len(pixels)} images, but {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= len(source.classes):
            expected = f"0 to {len(source.classes) - 1}"
            raise UserError(f"{where}: labels {labels.min()} to {labels.max()}, not {expected}")
        parts.append((pixels, labels))
        paths += [f"{name}/{part}/{i:05d}" for i in range(len(pixels))]
    # one part is passed on as it is: concatenating would copy it
    pixels, labels = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    checksum = _checksum_arrays(pixels, labels)
    if size is not None:
        pixels = np.stack([images.resize(image, size) for image in pixels])
    return Images(pixels, labels.astype(np.int64), paths, list(source.classes), [], checksum)


def _checksum_arrays(pixels: np.ndarray, labels: np.ndarray) -> str:
    """sha256 of the shape, the labels and the pixels; above SAMPLE bytes, of every k-th image's."""
    step = math.ceil(pixels.nbytes / SAMPLE)
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
    files: dict[str, list[str]]  # split -> below DATA_ROOT
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


# ---- sets that are folders of images

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
        there = sorted(path.parent.name for path in (root / name).glob("*/train"))
        expected = f"expected one in {root / name} ({', '.join(there) or 'none yet'})"
        raise UserError(f"dataset.split names the collection of {name}, it is {tag!r}: {expected}")
    return find(name, root, [tag], {tag: [f"{name}/{tag}/train"]})[tag][0]


def _load_folders(
    found: list[Path], size: int | tuple[int, int] | None, max_bad: float, read: Reader
) -> Images:
    pixels, files, skipped = read(found, size, max_bad)
    labels, classes = folders.classes(files)
    paths = [str(path) for path, _ in files]
    return Images(pixels, labels, paths, classes, skipped, folders.checksum(files))
