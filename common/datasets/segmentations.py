"""Data sets whose images have true segmentations, and a folder of yours."""

import glob
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from common import UserError, datasets, images
from common.datasets import download, folders, formats

PICTURES = set(folders.EXTENSIONS) - {".png"}  # beside which a PNG is one of labels


@dataclass(frozen=True)
class Segmentations:
    """Images with one or several true segmentations each, read when asked for.

    n_classes and ignore (the label of unlabelled pixels) are None where segments have no class;
    classes, their names, are None where nobody says them.
    """

    paths: list[str]
    n_classes: int | None
    ignore: int | None
    ground_truth_paths: list[Path]
    classes: list[str] | None = None
    from_one: bool = False  # labels count from 1 since 0 is what nobody named

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, i: int) -> np.ndarray:
        """uint8 (h, w, 3)."""
        return images.load(self.paths[i])

    def ground_truths(self, i: int) -> list[np.ndarray]:
        """One int64 (h, w) for each annotator. Raises UserError for a damaged file."""
        path = self.ground_truth_paths[i]
        with formats.reading(path), Image.open(self.paths[i]) as image:
            if path.suffix == ".mat":
                cells = formats.mat(path, "groundTruth").ravel()
                truths = [cell["Segmentation"][0, 0].astype(np.int64) for cell in cells]
            elif path.suffix == ".txt":
                truths = [self._checked(np.loadtxt(path, np.int64, ndmin=2))]
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
        return self._checked(np.where(labels == 0, 255, labels - 1) if self.from_one else labels)

    def _checked(self, labels: np.ndarray) -> np.ndarray:
        labels = np.where(labels < 0, self.ignore, labels)
        highest = labels[labels != self.ignore].max(initial=0)
        formats.expect(
            highest < self.n_classes, f"label {highest}, expected below {self.n_classes}"
        )
        return labels


def load(
    name: str, split: str = "", root: str | Path | None = None, path: str | Path | None = None
) -> Segmentations:
    """bsds500, camvid, ade20k, stanford_background, or a folder of images and their labels.

    split: "train", "val", "test", several by +, or "" for all; of a folder see `_of_folder`. path:
    the folder. Raises UserError where images or their truths are missing.
    """
    if path or name == "folder":
        if not path:
            raise UserError(
                "dataset.name folder needs dataset.path, the folder of images and labels"
            )
        return _of_folder(Path(path).expanduser(), split)
    if name not in _SETS:
        raise UserError(f"dataset.name {name} is none of {', '.join([*_SETS, 'folder'])}")
    files, suffix, n_classes, ignore = _SETS[name]
    root = download.data_root(root)
    splits = datasets.choose_splits(name, split, files)
    found = datasets.find(name, root, splits, files)
    paths, truths = [], []
    for part, (image_folder, truth_folder) in found.items():
        listed = [
            each
            for each in sorted(image_folder.iterdir())
            if each.suffix.lower() in folders.EXTENSIONS
        ]
        if name == "stanford_background":  # nobody has split it: every fifth picture is val
            fifths = {"train": (0, 1, 2, 3), "val": (4,)}[part]
            listed = [each for i, each in enumerate(listed) if i % 5 in fifths]
        paths += map(str, listed)
        truths += [truth_folder / f"{each.stem}{suffix}" for each in listed]
    absent = [str(path) for path in truths if not path.exists()]
    if absent or not paths:
        raise UserError(f"{name} in {root} lacks {absent[0] if absent else 'images'}")
    classes = _ade20k_classes(root) if name == "ade20k" else _CLASSES.get(name)
    return Segmentations(paths, n_classes, ignore, truths, classes, name == "ade20k")


def _of_folder(folder: Path, split: str) -> Segmentations:
    """Pictures and PNGs of one label a pixel, 255 where there is none; several splits by +.

    NAME.jpg beside NAME.png, or images/NAME.* and labels/NAME.png; below FOLDER/SPLIT, or
    FOLDER/images/SPLIT and FOLDER/labels/SPLIT. classes.txt in FOLDER has a name a line; without
    it the classes are as many as the labels of all splits show. Raises UserError.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is {'no folder' if folder.exists() else 'absent'}")
    pairs: list[tuple[Path, Path]] = []
    for part in (split or ".").split("+"):
        places = [(folder / part / kind, folder / kind / part) for kind in ("images", "labels")]
        both = next((p for p in zip(*places, strict=True) if all(map(Path.is_dir, p))), None)
        found = _pairs(*(both or (folder / part, folder / part)))
        if not found:
            raise UserError(
                f"{folder / part} holds no pair of a picture and its labels: expected NAME.jpg "
                "beside NAME.png, or images/NAME.jpg and labels/NAME.png"
            )
        pairs += found
    classes, file = None, folder / "classes.txt"
    if file.is_file():
        with formats.reading(file):
            classes = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
            classes = [line for line in classes if line]
    n_classes = len(classes) if classes else _highest(folder) + 1
    paths, truths = zip(*pairs, strict=True)
    return Segmentations([str(path) for path in paths], n_classes, 255, list(truths), classes)


def _pairs(pictures: Path, labels: Path) -> list[tuple[Path, Path]]:
    if not pictures.is_dir():
        return []
    return [
        (path, labels / f"{path.stem}.png")
        for path in sorted(pictures.iterdir())
        if path.suffix.lower() in folders.EXTENSIONS
        and (labels / f"{path.stem}.png").is_file()
        and (labels != pictures or path.suffix.lower() in PICTURES)
    ]


def _highest(folder: Path) -> int:
    """The highest label but 255 of all PNGs of labels below a folder, which pictures may share."""
    highest = 0
    for path in sorted(folder.rglob("*.png")):
        beside = {each.suffix.lower() for each in path.parent.glob(f"{glob.escape(path.stem)}.*")}
        if "labels" not in path.relative_to(folder).parts and not beside & PICTURES:
            continue
        with formats.reading(path), Image.open(path) as picture:
            if picture.mode in ("L", "P"):
                labels = np.array(picture)
                highest = max(highest, int(labels[labels != 255].max(initial=0)))
    return highest


def _ade20k_classes(root: Path) -> list[str] | None:
    """The first name of each class, from the table that comes with the data."""
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
# name: folders of images and truths of every split, how a truth's name ends, n_classes, ignore
_SETS = {
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

NAMES = tuple(_SETS)
