"""Loads datasets with ground-truth segmentations, or a folder of images and label maps."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import UserError, datasets, images
from common.datasets import download, folders, formats, label_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segmentations:
    """Images with one or several ground-truth segmentations each, read on demand.

    n_classes and ignore (the label of unlabeled pixels) are None if segments have no class; classes
    (names) is None if unknown.
    """

    paths: list[str]
    n_classes: int | None
    ignore: int | None
    ground_truth_paths: list[Path]
    classes: list[str] | None = None
    from_one: bool = False  # labels count from 1; 0 is unlabeled
    values: tuple[int, ...] | None = None  # in the label maps, of the classes; others are unlabeled

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, i: int) -> np.ndarray:
        """uint8 (h, w, 3)."""
        return images.load(self.paths[i])

    def ground_truths(self, i: int) -> list[np.ndarray]:
        """Labels int64 (h, w) of each annotator, upright like the image.

        Raises UserError for a damaged file, and for another size than that of the upright image.
        """
        path = self.ground_truth_paths[i]
        with formats.reading(path):
            if self.n_classes is None:
                truths = label_files.annotators(path)
            elif path.suffix == ".txt":
                truths = [self._check(np.loadtxt(path, np.int64, ndmin=2))]
            else:
                truths = [self._check(label_files.label_map(path))]
            for truth in truths:
                images.check_same_size(truth.shape, self.paths[i])
            return list(truths)

    def _check(self, labels: np.ndarray) -> np.ndarray:
        """Classes from 0, and `ignore` where the labels in a file name none."""
        if self.values:
            classes = np.full_like(labels, self.ignore)
            for k, value in enumerate(self.values):
                classes[labels == value] = k
            return classes
        if self.from_one:
            labels = np.where(labels == 0, self.ignore, labels - 1)
        labels = np.where(labels < 0, self.ignore, labels)
        highest = labels[labels != self.ignore].max(initial=0)
        formats.expect(
            highest < self.n_classes, f"label {highest}, expected below {self.n_classes}"
        )
        return labels


def load(
    name: str,
    split: str = "",
    root: str | Path | None = None,
    path: str | Path | None = None,
    values: Sequence[int] | None = None,
) -> Segmentations:
    """One of NAMES, or a folder of images and label maps.

    split: "train", "val", "test", several joined by +, or "" for all; of a folder see
    `_load_folder`. path: the folder. values: of the classes in its label maps, in order; None: 0,
    1, 2, ..., and 255 where unlabeled. Raises UserError for missing images or ground truths.
    """
    if path or name == "folder":
        if not path:
            raise UserError(
                "dataset.name folder needs dataset.path, the folder of images and labels"
            )
        return _load_folder(Path(path).expanduser(), split, tuple(values) if values else None)
    if values:
        raise UserError(f"dataset.values is for folders of images and labels, not for {name}")
    if name not in _DATASETS:
        expected = ", ".join([*_DATASETS, "folder"])
        raise UserError(f"dataset.name {name} has no segmentations: expected one of {expected}")
    files, suffix, n_classes, ignore = _DATASETS[name]
    root = download.data_root(root)
    splits = datasets.choose_splits(name, split, files)
    paths, truths = [], []
    for part, (image_folder, truth_folder) in datasets.find(name, root, splits, files).items():
        listed = _list_images(image_folder)
        if name == "stanford_background":  # has no official split: every fifth image is val
            fifths = {"train": (0, 1, 2, 3), "val": (4,)}[part]
            listed = [image for i, image in enumerate(listed) if i % 5 in fifths]
        paths += map(str, listed)
        truths += [truth_folder / f"{image.stem}{suffix}" for image in listed]
    missing = [str(truth) for truth in truths if not truth.exists()]
    if missing or not paths:
        raise UserError(f"{name} in {root} lacks {missing[0] if missing else 'images'}")
    classes = _ade20k_classes(root) if name == "ade20k" else _CLASSES.get(name)
    return Segmentations(paths, n_classes, ignore, truths, classes, name == "ade20k")


def _list_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    folders.log_unread(folder, files)
    return [path for path in files if folders.is_image(path)]


def _load_folder(folder: Path, split: str, values: tuple[int, ...] | None) -> Segmentations:
    """Images and label maps, see `label_files.label_map`; several splits joined by +.

    NAME.jpg beside NAME.png, or images/NAME.* and labels/NAME.*; below FOLDER/SPLIT, or in
    FOLDER/images/SPLIT and FOLDER/labels/SPLIT. FOLDER/classes.txt has one class name per line;
    without it n_classes is the number of values, or the largest label of all splits + 1. Raises
    UserError.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {problem}: expected a folder of images and labels")
    pairs: list[tuple[Path, Path]] = []
    for part in (split or ".").split("+"):
        layouts = [(folder / part / kind, folder / kind / part) for kind in ("images", "labels")]
        both = next((p for p in zip(*layouts, strict=True) if all(map(Path.is_dir, p))), None)
        image_folder, label_folder = both or (folder / part, folder / part)
        pairs_of_part = _pairs(image_folder, label_folder)
        if not pairs_of_part:
            unread = folders.describe_unread(
                image_folder.iterdir() if image_folder.is_dir() else ()
            )
            raise UserError(
                f"{folder / part} contains no pair of image and labels: expected NAME.jpg beside "
                "NAME.png, or images/NAME.jpg and labels/NAME.png" + f"; {unread}" * bool(unread)
            )
        pairs += pairs_of_part
    classes, file = None, folder / "classes.txt"
    if file.is_file():
        with formats.reading(file):
            classes = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
            classes = [line for line in classes if line]
    if values and classes and len(values) != len(classes):
        raise UserError(f"dataset.values has {len(values)} classes, {file} {len(classes)}")
    if values:
        classes = classes or [str(value) for value in values]
    n_classes = len(classes) if classes else _max_label(folder) + 1
    paths, truths = zip(*pairs, strict=True)
    return Segmentations(
        [str(path) for path in paths], n_classes, 255, list(truths), classes, values=values
    )


def _pairs(image_folder: Path, label_folder: Path) -> list[tuple[Path, Path]]:
    """Images and their label maps; raises UserError for several label maps of an image."""
    labels = _label_maps(label_folder, image_folder != label_folder)
    listed = [path for path in _list_images(image_folder) if path not in labels.values()]
    pairs = [(path, labels[path.stem]) for path in listed if path.stem in labels]
    if pairs and len(pairs) < len(listed):
        missing = next(path for path in listed if path.stem not in labels)
        count = f"{len(listed) - len(pairs)} of {len(listed)} images"
        log.warning("%s of %s have no label map and are not used: %s", count, image_folder, missing)
    return pairs


def _label_maps(folder: Path, is_apart: bool) -> dict[str, Path]:
    """The label maps in a folder by name without suffix; raises UserError for two of a name.

    is_apart: the images are in another folder. Otherwise a label map is a PNG, .npy or .mat beside
    an image of its name; beside a PNG that is the only image, it is a .npy or .mat.
    """
    files = defaultdict(list)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.startswith("."):
            files[path.stem].append(path)
    by_name = {}
    for stem, paths in files.items():
        suffixes = set(label_files.SUFFIXES)
        if not is_apart:
            of_images = {path.suffix.lower() for path in paths if folders.is_image(path)}
            suffixes = {".npy", ".mat"} if of_images else set()
            suffixes |= {".png"} if of_images - {".png"} else set()
        maps = [path for path in paths if path.suffix.lower() in suffixes]
        if len(maps) > 1:
            names = " and ".join(path.name for path in maps)
            raise UserError(f"{folder} has two label maps of one image, {names}: keep one")
        if maps:
            by_name[stem] = maps[0]
    return by_name


def _max_label(folder: Path) -> int:
    """The largest label except 255 of all label maps below a folder, which has images too."""
    highest = 0
    for parent in sorted({folder, *(path for path in folder.rglob("*") if path.is_dir())}):
        is_apart = "labels" in parent.relative_to(folder).parts
        for path in _label_maps(parent, is_apart).values():
            labels = label_files.label_map(path)
            labels = labels[labels != 255]
            highest = max(highest, int(labels.max(initial=0)))
            if highest > 255:
                raise UserError(
                    f"{path} has label {highest}: expected 0 to 254, and 255 where unlabeled; or "
                    "set dataset.values to the values of the classes"
                )
    return highest


def _ade20k_classes(root: Path) -> list[str] | None:
    """The first name of each class, from a table in the dataset; None without it."""
    path = root / "ADEChallengeData2016/objectInfo150.txt"
    if not path.is_file():
        return None
    with formats.reading(path):
        rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
        names = [row[-1].split(",")[0].strip() for row in rows if len(row) > 1]
        formats.expect(len(names) == 150, f"{len(names)} classes, expected 150")
        return names


_CLASSES = {
    "camvid": "sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,cyclist".split(","),
    "stanford_background": "sky,tree,road,grass,water,building,mountain,foreground".split(","),
}
# name: folders of images and ground truths per split, suffix of ground truths, n_classes, ignore
_DATASETS = {
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
    "stanford_background": (
        {split: ["iccv09Data/images", "iccv09Data/labels"] for split in ("train", "val")},
        ".regions.txt",
        8,
        255,
    ),
}

NAMES = tuple(_DATASETS)
