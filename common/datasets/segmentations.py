"""Loads datasets with ground-truth segmentations, or a folder of images and label maps."""

import glob
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from common import UserError, datasets, images
from common.datasets import download, folders, formats

IMAGE_EXTENSIONS = set(folders.EXTENSIONS) - {".png"}  # a PNG of the same name has the labels


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

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, i: int) -> np.ndarray:
        """uint8 (h, w, 3)."""
        return images.load(self.paths[i])

    def ground_truths(self, i: int) -> list[np.ndarray]:
        """Labels int64 (h, w) of each annotator; raises UserError for a damaged file."""
        path = self.ground_truth_paths[i]
        with formats.reading(path), Image.open(self.paths[i]) as image:
            if path.suffix == ".mat":
                cells = formats.mat(path, "groundTruth").ravel()
                truths = [cell["Segmentation"][0, 0].astype(np.int64) for cell in cells]
            elif path.suffix == ".txt":
                truths = [self._check(np.loadtxt(path, np.int64, ndmin=2))]
            else:
                truths = [self._read_png(path)]
            for truth in truths:
                expected = (image.height, image.width)
                formats.expect(truth.shape == expected, f"labels {truth.shape}, image {expected}")
            return truths

    def _read_png(self, path: Path) -> np.ndarray:
        with Image.open(path) as image:
            has_labels = image.mode in ("L", "P")
            formats.expect(has_labels, f"mode {image.mode}, expected one label per pixel")
            labels = np.array(image, np.int64)
        return self._check(np.where(labels == 0, 255, labels - 1) if self.from_one else labels)

    def _check(self, labels: np.ndarray) -> np.ndarray:
        labels = np.where(labels < 0, self.ignore, labels)
        highest = labels[labels != self.ignore].max(initial=0)
        formats.expect(
            highest < self.n_classes, f"label {highest}, expected below {self.n_classes}"
        )
        return labels


def load(
    name: str, split: str = "", root: str | Path | None = None, path: str | Path | None = None
) -> Segmentations:
    """One of NAMES, or a folder of images and label maps.

    split: "train", "val", "test", several joined by +, or "" for all; of a folder see
    `_load_folder`. path: the folder. Raises UserError for missing images or ground truths.
    """
    if path or name == "folder":
        if not path:
            raise UserError(
                "dataset.name folder needs dataset.path, the folder of images and labels"
            )
        return _load_folder(Path(path).expanduser(), split)
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
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in folders.EXTENSIONS]


def _load_folder(folder: Path, split: str) -> Segmentations:
    """Images and PNGs with one label per pixel, 255 if unlabeled; several splits joined by +.

    NAME.jpg beside NAME.png, or images/NAME.* and labels/NAME.png; below FOLDER/SPLIT, or in
    FOLDER/images/SPLIT and FOLDER/labels/SPLIT. FOLDER/classes.txt has one class name per line;
    without it n_classes is the largest label of all splits + 1. Raises UserError.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {problem}: expected a folder of images and labels")
    pairs: list[tuple[Path, Path]] = []
    for part in (split or ".").split("+"):
        layouts = [(folder / part / kind, folder / kind / part) for kind in ("images", "labels")]
        both = next((p for p in zip(*layouts, strict=True) if all(map(Path.is_dir, p))), None)
        pairs_of_part = _pairs(*(both or (folder / part, folder / part)))
        if not pairs_of_part:
            raise UserError(
                f"{folder / part} contains no pair of image and labels: expected NAME.jpg beside "
                "NAME.png, or images/NAME.jpg and labels/NAME.png"
            )
        pairs += pairs_of_part
    classes, file = None, folder / "classes.txt"
    if file.is_file():
        with formats.reading(file):
            classes = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
            classes = [line for line in classes if line]
    n_classes = len(classes) if classes else _max_label(folder) + 1
    paths, truths = zip(*pairs, strict=True)
    return Segmentations([str(path) for path in paths], n_classes, 255, list(truths), classes)


def _pairs(image_folder: Path, label_folder: Path) -> list[tuple[Path, Path]]:
    """Images and their label maps."""
    pairs = [(path, label_folder / f"{path.stem}.png") for path in _list_images(image_folder)]
    return [
        (path, labels)
        for path, labels in pairs
        if labels.is_file()
        and (image_folder != label_folder or path.suffix.lower() in IMAGE_EXTENSIONS)
    ]


def _max_label(folder: Path) -> int:
    """The largest label except 255 of all label maps below a folder, which has images too."""
    highest = 0
    for path in sorted(folder.rglob("*.png")):
        siblings = path.parent.glob(f"{glob.escape(path.stem)}.*")
        has_image = any(sibling.suffix.lower() in IMAGE_EXTENSIONS for sibling in siblings)
        if not has_image and "labels" not in path.relative_to(folder).parts:
            continue
        with formats.reading(path), Image.open(path) as image:
            if image.mode in ("L", "P"):
                labels = np.array(image)
                highest = max(highest, int(labels[labels != 255].max(initial=0)))
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
