"""Reads label maps and segmentations from files: images, .npy and .mat."""

from pathlib import Path

import numpy as np

from common import images
from common.datasets import formats

SUFFIXES = (".mat", ".npy", ".png", ".tif", ".tiff")


def label_map(path: Path) -> np.ndarray:
    """The only label map in a file: int64 (h, w), rotated according to its own EXIF tag.

    .mat: a cell `segs` of one map, or `groundTruth` of one annotator; .npy: integers (h, w) or
    (1, h, w); .png, .tif: one label per pixel, of 1 to 32 bits. Raises UserError.
    """
    with formats.reading(path):
        is_annotated = path.suffix.lower() == ".mat" and formats.has_variable(path, "groundTruth")
        maps = annotators(path) if is_annotated else segmentations(path)
        if isinstance(maps, np.ndarray) and maps.ndim == 2:
            maps = [maps]
        formats.expect(len(maps) == 1, f"{len(maps)} label maps, expected one")
        return to_integers(maps[0])


def annotators(path: Path) -> list[np.ndarray]:
    """The labels int64 (h, w) of each annotator in a BSDS .mat file; ValueError if damaged."""
    cells = formats.mat(path, "groundTruth").ravel()
    formats.expect(len(cells) > 0, "no annotator")
    return [to_integers(cell["Segmentation"][0, 0]) for cell in cells]


def segmentations(path: Path) -> np.ndarray | list[np.ndarray]:
    """What a file has: an array (h, w) or (scales, h, w), or a list of (h, w). Any exception.

    .mat: the cell `segs` or, without it, `ucm2`; .npy: the array; others: an image.
    """
    return _READERS.get(path.suffix.lower(), images.load_labels)(path)


def _mat(path: Path) -> np.ndarray | list[np.ndarray]:
    import scipy.io

    with open(path, "rb") as file:
        version = file.read(128)
    formats.expect(b"MATLAB 7.3" not in version, 'MATLAB 7.3, expected save(..., "-v7")')
    variables = scipy.io.loadmat(path, variable_names=["segs", "ucm2"])
    formats.expect(bool({"segs", "ucm2"} & variables.keys()), "neither segs nor ucm2")
    if "segs" not in variables:
        return variables["ucm2"]
    segs = variables["segs"]  # a cell; scipy.io.savemat writes equal arrays as a single array
    return list(segs.ravel()) if segs.dtype == object else segs


def _npy(path: Path) -> np.ndarray:
    # a memory map refuses pickled objects, and files shorter than their header claims
    maps = np.array(np.lib.format.open_memmap(path, mode="r"))
    formats.expect(maps.ndim in (2, 3), f"an array {maps.shape}, expected (scales, h, w)")
    return maps


_READERS = {".mat": _mat, ".npy": _npy}


def to_integers(labels: np.ndarray) -> np.ndarray:
    """Labels (h, w) as int64; raises ValueError for fractions and for another shape."""
    formats.expect(labels.dtype.kind in "iubf", f"labels of {labels.dtype}")
    formats.expect(labels.ndim == 2 and labels.size > 0, f"labels {labels.shape}, expected (h, w)")
    if labels.dtype.kind != "f":
        return labels.astype(np.int64)
    is_whole = bool(np.isfinite(labels).all()) and bool((labels == np.rint(labels)).all())
    formats.expect(is_whole, f"fractions of shape {labels.shape}, expected labels or a contour map")
    return labels.astype(np.int64)
