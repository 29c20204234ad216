"""Files of segmentations, anybody's and BSDS's: .mat, .npy and .png to label maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from common import UserError
from common.bsds import boundaries, hierarchy
from common.datasets import formats

SUFFIXES = (".mat", ".npy", ".png")


@dataclass(frozen=True)
class Scales:
    """One picture's segmentations: labels (h, w) of each scale, and their boundaries if known."""

    labels: Sequence[np.ndarray]
    edges: Sequence[np.ndarray] | None


def find(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> dict[str, Path]:
    """The files of a folder by their names without suffix. Raises UserError where two share one."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is {'no folder' if folder.exists() else 'absent'}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(f"{folder} has {found[path.stem].name} and {path.name}: keep one")
        found[path.stem] = path
    if not found:
        raise UserError(f"{folder} has no {' or '.join(suffixes)} file")
    return found


def ground_truths(path: Path) -> Scales:
    """All annotators of a BSDS .mat file. Raises UserError for a damaged one."""
    with formats.reading(path):
        cells = formats.mat(path, "groundTruth").ravel()
        formats.expect(len(cells) > 0, "no annotator")
        labels = [_integers(cell["Segmentation"][0, 0]) for cell in cells]
        edges = []
        for cell, one in zip(cells, labels, strict=True):
            stored = "Boundaries" in cell.dtype.names
            edges.append(cell["Boundaries"][0, 0] > 0 if stored else boundaries.of_labels(one))
        for one in (*labels, *edges):
            formats.expect(one.shape == labels[0].shape, f"maps {labels[0].shape} and {one.shape}")
        return Scales(labels, edges)


def prediction(path: Path, shape: tuple[int, int], n_thresholds: int) -> Scales:
    """The scales of one file for a picture of that shape (h, w); raises UserError.

    .mat: a cell `segs` of label maps, or `ucm2`; .npy: integers (h, w) or (scales, h, w), or a
    contour map of fractions (2h + 1, 2w + 1); .png: one label a pixel. A contour map in [0, 1] is
    cut at n_thresholds heights, evenly spread between the two.
    """
    with formats.reading(path):
        maps = {".mat": _mat, ".npy": _npy, ".png": _png}[path.suffix.lower()](path)
        doubled = (2 * shape[0] + 1, 2 * shape[1] + 1)
        if isinstance(maps, np.ndarray) and maps.ndim == 2 and maps.shape == doubled:
            return cut(maps, n_thresholds)
        if isinstance(maps, np.ndarray) and maps.ndim == 2:
            maps = [maps]
        formats.expect(len(maps) > 0, "no segmentation")
        for one in maps:
            formats.expect(one.shape == shape, f"labels {one.shape}, ground truth {shape}")
        labels = [_integers(one) for one in maps]
        return Scales(labels, None)


def cut(ucm: np.ndarray, n_thresholds: int) -> Scales:
    """Regions joined up to each threshold, and what of the contour map is not below it."""
    ucm = np.asarray(ucm, np.float64)
    formats.expect(
        bool(np.isfinite(ucm).all() and ucm.min() >= 0 and ucm.max() <= 1),
        "a contour map outside 0 to 1",
    )
    thresholds = np.arange(1, n_thresholds + 1) / (n_thresholds + 1)
    labels = hierarchy.from_ucm(ucm).cuts(thresholds)
    return Scales(labels, [boundaries.thin(ucm[2::2, 2::2] >= one) for one in thresholds])


def _mat(path: Path) -> np.ndarray | list[np.ndarray]:
    import scipy.io

    with open(path, "rb") as file:
        version = file.read(128)
    formats.expect(b"MATLAB 7.3" not in version, 'MATLAB 7.3, expected save(..., "-v7")')
    found = scipy.io.loadmat(path, variable_names=["segs", "ucm2"])
    formats.expect(bool({"segs", "ucm2"} & found.keys()), "neither segs nor ucm2")
    if "segs" not in found:
        return found["ucm2"]
    # a cell; from Python a list of equal arrays arrives as one array
    return list(found["segs"].ravel()) if found["segs"].dtype == object else found["segs"]


def _npy(path: Path) -> np.ndarray:
    # mapped first: a file that is shorter than its header says, or that holds objects, is met here
    maps = np.array(np.lib.format.open_memmap(path, mode="r"))
    formats.expect(maps.ndim in (2, 3), f"an array {maps.shape}, expected (scales, h, w)")
    return maps


def _png(path: Path) -> np.ndarray:
    with Image.open(path, formats=["PNG"]) as picture:
        single = picture.mode in ("1", "L", "P", "I") or picture.mode.startswith("I;16")
        formats.expect(single, f"mode {picture.mode}, expected one label a pixel")
        return np.array(picture)


def _integers(labels: np.ndarray) -> np.ndarray:
    formats.expect(labels.dtype.kind in "iubf", f"labels of {labels.dtype}")
    formats.expect(labels.ndim == 2 and labels.size > 0, f"labels {labels.shape}, expected (h, w)")
    if labels.dtype.kind != "f":
        return labels.astype(np.int64)
    whole = bool(np.isfinite(labels).all()) and bool((labels == np.rint(labels)).all())
    formats.expect(whole, f"fractions of shape {labels.shape}, expected labels or a contour map")
    return labels.astype(np.int64)
