"""Data sets whose images have true segmentations: BSDS500, CamVid and ADE20K."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from common import UserError, datasets, download, folders, formats, images


@dataclass(frozen=True)
class Segmentations:
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


def load(name: str, split: str = "", root: str | Path | None = None) -> Segmentations:
    """bsds500, camvid or ade20k; split "train", "val", "test", several by +, or "" for all.

    Raises UserError where images or their truths are missing.
    """
    if name not in _SETS:
        raise UserError(f"dataset.name {name} is none of {', '.join(_SETS)}")
    files, suffix, n_classes, ignore = _SETS[name]
    root = download.data_root(root)
    splits = datasets.choose_splits(name, split, files)
    found = datasets.find(name, root, splits, files)
    paths, truths = [], []
    for image_folder, truth_folder in found.values():
        for path in sorted(image_folder.iterdir()):
            if path.suffix.lower() in folders.EXTENSIONS:
                paths.append(str(path))
                truths.append(truth_folder / f"{path.stem}{suffix}")
    absent = [str(path) for path in truths if not path.exists()]
    if absent or not paths:
        raise UserError(f"{name} in {root} lacks {absent[0] if absent else 'images'}")
    return Segmentations(paths, n_classes, ignore, truths)


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
}
