"""Every data set as numpy: uint8 images (n, h, w, c) and labels; a folder of images is one too.

What is not below DATA_ROOT is taken from the system's own copies, else downloaded.
data/README.md says where each set lies.
"""

import dataclasses
import difflib
import functools
import hashlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

from common import UserError, download, formats, images

EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
DEFAULT_SIZE = 64  # of a folder whose images differ in size
SAMPLE = 64 << 20  # bytes of pixels that a checksum reads at most
# Debian's package dataset-fashion-mnist
SYSTEM_COPIES = {"fashion_mnist": Path("/usr/share/datasets/fashion-mnist")}

log = logging.getLogger("common.datasets")


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
) -> Images:
    """A data set by name, one of NAMES.

    split: "train", "test", "all" (what "" means: train, then test) or several as in "all+extra"; of
    a collection the tag, of a folder a sub-folder. path: the folder, for those that are one.
    size: see images.resize; None keeps the images' own, or takes DEFAULT_SIZE where they differ.
    Bad files of a folder are skipped. Raises UserError for a share of them above max_bad, and for
    all that is missing or damaged.
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
        return _load_folders([Path(path).expanduser() / split], size, max_bad)
    if name == "folder":
        raise UserError("dataset.name folder needs dataset.path, the folder of images")
    if name in _COLLECTIONS:
        return _load_folders([_collection(name, split, root)], size, max_bad)
    splits = _splits(name, split, _IMAGENETTE_FILES)
    found = _find(name, root, splits, _IMAGENETTE_FILES)
    loaded = _load_folders([found[part][0] for part in splits], size, max_bad)
    classes = [_IMAGENETTE_CLASSES.get(each, each) for each in loaded.classes or []]
    return dataclasses.replace(loaded, classes=classes or None)


def _splits(name: str, split: str, known: Iterable[str]) -> list[str]:
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


def _find(
    name: str, root: Path, splits: list[str], files: dict[str, list[str]]
) -> dict[str, list[Path]]:
    """Where the files of these splits are; fetches what is missing. Raises UserError."""

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
    splits = _splits(name, split, source.files)
    found = _find(name, root, splits, source.files)
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


# ---- folders of images

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
    return _find(name, root, [tag], {tag: [f"{name}/{tag}/train"]})[tag][0]


def _load_folders(
    folders: list[Path], size: int | tuple[int, int] | None, max_bad: float
) -> Images:
    listed, skipped = [], []
    for folder in folders:
        files, unreadable = _list_images(folder)
        listed += [(file, file.relative_to(folder).parts) for file in files]
        skipped += unreadable
    files = [file for file, _ in listed]
    (height, width), gray = _survey(files, size)
    pixels = np.empty((len(files), height, width, 1 if gray else 3), np.uint8)

    def decode(i: int) -> str | None:
        try:
            image = images.load(files[i], "L" if gray else "RGB")
        except UserError as error:
            return str(error).removeprefix(f"{files[i]}: ".replace("\n", "\\n"))
        if image.shape[:2] != (height, width):
            image = images.resize(image, (height, width) if size is None else size)
        pixels[i] = image[..., None] if gray else image
        return None

    from tqdm import tqdm

    with ThreadPool() as pool:
        reasons = pool.imap(decode, range(len(files)), chunksize=8)
        bar = tqdm(reasons, "reading", len(files), disable=not sys.stderr.isatty(), unit="image")
        good = []
        for i, reason in enumerate(bar):
            if reason is None:
                pixels[len(good)] = pixels[i]  # in place: a copy would double the memory
                good.append(i)
            else:
                skipped.append((str(files[i]), reason))
    _judge(skipped, len(good), max_bad, folders[0])
    listed, pixels = [listed[i] for i in good], pixels[: len(good)]
    labels, classes = _classes([parts for _, parts in listed])
    paths = [str(file) for file, _ in listed]
    return Images(pixels, labels, paths, classes, skipped, _checksum_files(listed))


def _list_images(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """All images below a folder by name, and (path, reason) of what cannot be looked into."""
    if os.path.isfile(folder) and folder.suffix.lower() in EXTENSIONS:
        return [folder], []
    if not os.path.isdir(folder):
        found = "a file of another kind" if os.path.isfile(folder) else "absent"
        raise UserError(f"{folder} is {found}, expected a folder of images or one image")
    files, skipped, seen = [], [], set()

    def failed(error: OSError) -> None:
        skipped.append((str(error.filename), error.strerror.lower()))

    for place, folders, names in os.walk(folder, onerror=failed, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:  # a link back up
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or not name.lower().endswith(EXTENSIONS):
                continue
            try:
                name.encode()
                files.append(Path(place, name))
            except UnicodeEncodeError:  # it could not be written to predictions.csv
                skipped.append((ascii(os.path.join(place, name)), "its name is not UTF-8"))
    if not files and not skipped:
        raise UserError(f"{folder} holds no image ({', '.join(EXTENSIONS)})")
    return files, skipped


def _survey(files: list[Path], size: int | tuple[int, int] | None) -> tuple[tuple[int, int], bool]:
    """The height and width to load in, and whether all are gray; from as few headers as will do."""
    sizes, gray = set(), True
    for file in files:
        try:
            if not file.is_file():  # a pipe would block for ever
                continue
            with Image.open(file, formats=images.FORMATS) as image:
                gray = gray and (image.mode in ("1", "L", "LA", "I") or image.mode[:4] == "I;16")
                turned = image.getexif().get(0x0112, 1) >= 5
                sizes.add((image.width, image.height) if turned else (image.height, image.width))
        except Exception:  # decoding meets it again and gives the reason
            continue
        if not gray and (size is not None or len(sizes) > 1):
            break
    if size is not None:
        return ((size, size) if isinstance(size, int) else size), gray
    if len(sizes) > 1:
        log.info("the images differ in size: loading the centre square at %d", DEFAULT_SIZE)
    return (sizes.pop() if len(sizes) == 1 else (DEFAULT_SIZE, DEFAULT_SIZE)), gray


def _judge(skipped: list[tuple[str, str]], n_good: int, max_bad: float, folder: Path) -> None:
    for path, reason in skipped:
        log.warning("skipped %r: %s", path, reason)
    if not skipped:
        return
    n_all = len(skipped) + n_good
    count = f"{len(skipped)} of {n_all} images cannot be read"
    log.warning("%s", count)
    if n_good == 0 or len(skipped) / n_all > max_bad:
        path, reason = skipped[0]
        raise UserError(
            f"{folder}: {count}, more than dataset.max_bad {max_bad} allows (first {path!r}: "
            f"{reason}): mend or remove them" + ", or raise dataset.max_bad" * (n_good > 0)
        )


def _classes(parts: list[tuple[str, ...]]) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels and names from top-level sub-folders; None if a file lies in none, or all in one."""
    names = [each[0] if len(each) > 1 else None for each in parts]
    if None in names or len(set(names)) < 2:
        return None, None
    classes, labels = np.unique(names, return_inverse=True)
    return labels.astype(np.int64), classes.tolist()


def _checksum_files(listed: list[tuple[Path, tuple[str, ...]]]) -> str:
    """sha256 of every name and size and of the first 64 kB of 64 files spread over the list."""
    digest = hashlib.sha256()
    step = math.ceil(len(listed) / 64)
    for i, (file, parts) in enumerate(listed):
        digest.update(f"{'/'.join(parts)}\0{file.stat().st_size}\0".encode())
        if i % step == 0:
            with open(file, "rb") as opened:
                digest.update(opened.read(1 << 16))
    return digest.hexdigest()


# ---- images with segmentations


@dataclass(frozen=True)
class Segmentation:
    """Images with one or several true segmentations each, read when asked for.

    n_classes and ignore (the label of unlabelled pixels) are None where segments have no class.
    """

    paths: list[str]
    n_classes: int | None
    ignore: int | None
    truth_paths: list[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, i: int) -> np.ndarray:
        """uint8 (h, w, 3)."""
        return images.load(self.paths[i])

    def truths(self, i: int) -> list[np.ndarray]:
        """One int64 (h, w) for each annotator. Raises UserError for a damaged file."""
        path = self.truth_paths[i]
        with formats.reading(path), Image.open(self.paths[i]) as image:
            if path.suffix == ".mat":
                cells = formats.mat(path, "groundTruth").ravel()
                truths = [cell["Segmentation"][0, 0].astype(np.int64) for cell in cells]
            else:
                truths = [self._labels(path)]
            for truth in truths:
                expected = (image.height, image.width)
                formats.expect(truth.shape == expected, f"labels {truth.shape}, image {expected}")
            return truths

    def _labels(self, path: Path) -> np.ndarray:
        with Image.open(path) as picture:
            formats.expect(
                picture.mode in ("L", "P"), f"mode {picture.mode}, expected one label a pixel"
            )
            labels = np.array(picture, np.int64)
        if self.ignore == 255:  # ADE20K counts from 1, 0 is what nobody named
            labels = np.where(labels == 0, 255, labels - 1)
        highest = labels[labels != self.ignore].max(initial=0)
        formats.expect(
            highest < self.n_classes, f"label {highest}, expected below {self.n_classes}"
        )
        return labels


def segmentation(name: str, split: str = "", root: str | Path | None = None) -> Segmentation:
    """bsds500, camvid or ade20k; split "train", "val", "test", several by +, or "" for all.

    Raises UserError where images or their truths are missing.
    """
    if name not in _SEGMENTATIONS:
        raise UserError(f"dataset.name {name} is none of {', '.join(_SEGMENTATIONS)}")
    files, suffix, n_classes, ignore = _SEGMENTATIONS[name]
    root = download.data_root(root)
    splits = _splits(name, split, files)
    found = _find(name, root, splits, files)
    paths, truths = [], []
    for image_folder, truth_folder in found.values():
        for path in sorted(image_folder.iterdir()):
            if path.suffix.lower() in EXTENSIONS:
                paths.append(str(path))
                truths.append(truth_folder / f"{path.stem}{suffix}")
    absent = [str(path) for path in truths if not path.exists()]
    if absent or not paths:
        raise UserError(f"{name} in {root} lacks {absent[0] if absent else 'images'}")
    return Segmentation(paths, n_classes, ignore, truths)


# name: folders of images and truths of every split, how a truth's name ends, n_classes, ignore
_SEGMENTATIONS = {
    "bsds500": (
        {
            split: [f"BSDS500/data/{kind}/{split}" for kind in ("images", "groundTruth")]
            for split in ("train", "val", "test")
        },
        ".mat",
        None,
        None,
    ),
    "camvid": (
        {split: [f"camvid/{split}", f"camvid/{split}annot"] for split in ("train", "val", "test")},
        ".png",
        11,
        11,
    ),
    "ade20k": (
        {
            split: [f"ADEChallengeData2016/{kind}/{long}" for kind in ("images", "annotations")]
            for split, long in (("train", "training"), ("val", "validation"))
        },
        ".png",
        150,
        255,
    ),
}
