"""Reads segmentations and the ground truth of BSDS as label maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import UserError
from common.bsds import boundaries, hierarchy
from common.datasets import formats, label_files


@dataclass(frozen=True)
class Scales:
    """Segmentations of one image: labels (h, w) of each scale, and boundaries if they are known."""

    labels: Sequence[np.ndarray]
    edges: Sequence[np.ndarray] | None


def find(folder: str | Path, suffixes: Sequence[str] = label_files.SUFFIXES) -> dict[str, Path]:
    """The files of a folder by name without suffix. Raises UserError for two of the same name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder} {'is not a folder' if folder.exists() else 'does not exist'}: "
            f"expected a folder of {' or '.join(suffixes)} files"
        )
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in paths:
            raise UserError(f"{folder} has {paths[path.stem].name} and {path.name}: keep one")
        paths[path.stem] = path
    if not paths:
        raise UserError(f"{folder} has no {' or '.join(suffixes)} file")
    return paths


def ground_truths(path: Path) -> Scales:
    """The segmentations of all annotators in a BSDS .mat file; raises UserError if damaged."""
    with formats.reading(path):
        labels = label_files.annotators(path)
        cells = formats.mat(path, "groundTruth").ravel()
        edges = []
        for cell, segmentation in zip(cells, labels, strict=True):
            if "Boundaries" in cell.dtype.names:
                edges.append(cell["Boundaries"][0, 0] > 0)
            else:
                edges.append(boundaries.of_labels(segmentation))
        shape = labels[0].shape
        for array in (*labels, *edges):
            formats.expect(array.shape == shape, f"maps {shape} and {array.shape}")
        return Scales(labels, edges)


def prediction(path: Path, shape: tuple[int, int], n_thresholds: int) -> Scales:
    """The scales in the file of an image with shape (h, w); raises UserError.

    .mat: a cell `segs` of label maps, or a contour map `ucm2`; .npy: integers (h, w) or
    (scales, h, w), or a contour map (2h + 1, 2w + 1); .png, .tif: one label per pixel. Contour
    maps, of values in [0, 1], are cut at n_thresholds evenly spaced heights.
    """
    with formats.reading(path):
        maps = label_files.segmentations(path)
        doubled = (2 * shape[0] + 1, 2 * shape[1] + 1)
        if isinstance(maps, np.ndarray) and maps.ndim == 2 and maps.shape == doubled:
            return cut(maps, n_thresholds)
        if isinstance(maps, np.ndarray) and maps.ndim == 2:
            maps = [maps]
        formats.expect(len(maps) > 0, "no segmentation")
        for labels in maps:
            formats.expect(labels.shape == shape, f"labels {labels.shape}, ground truth {shape}")
        return Scales([label_files.to_integers(labels) for labels in maps], None)


def cut(ucm: np.ndarray, n_thresholds: int) -> Scales:
    """Regions merged up to each threshold, and contours of at least the threshold."""
    ucm = np.asarray(ucm, np.float64)
    formats.expect(
        bool(np.isfinite(ucm).all() and ucm.min() >= 0 and ucm.max() <= 1),
        "a contour map with values outside 0 to 1",
    )
    thresholds = np.arange(1, n_thresholds + 1) / (n_thresholds + 1)
    labels = hierarchy.from_ucm(ucm).cuts(thresholds)
    return Scales(labels, [boundaries.thin(ucm[2::2, 2::2] >= t) for t in thresholds])
