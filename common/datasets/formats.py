"""Readers of the official file formats of datasets.

A reader takes the files of one split and returns images uint8 (n, h, w, c) and labels int (n,). It
raises a UserError that names the file if it is damaged, of another format or has invalid values.
"""

import contextlib
import gzip
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from common import UserError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns any exception inside into a UserError that names the file."""
    try:
        yield
    except UserError:  # names it already
        raise
    except Exception as error:  # a damaged file makes its parser raise nearly anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is damaged or of another format: {reason}") from error


def expect(condition: bool, message: str) -> None:
    """Raises ValueError, for `reading` to catch, if a condition of the format is violated."""
    if not condition:
        raise ValueError(message)


def _key(file: Mapping, key: str) -> np.ndarray:
    expect(key in file, f"no key {key!r}")
    return np.asarray(file[key])


def idx(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's format: a file of images (n, h, w), one of labels (n,); gzip or not."""
    pixels, labels = _idx_array(paths[0], 3), _idx_array(paths[1], 1)
    return pixels[..., None], labels.astype(np.int64)


def _idx_array(path: Path, n_dims: int) -> np.ndarray:
    with reading(path), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        data = bytearray(file.read())  # writable: PyTorch warns of read-only arrays
        magic = int.from_bytes(data[:4], "big")
        expect(magic == 0x800 + n_dims, f"magic number {magic:#x}, expected {0x800 + n_dims:#x}")
        shape = [int(n) for n in np.frombuffer(data, ">u4", n_dims, 4)]
        values = np.frombuffer(data, np.uint8, offset=4 + 4 * n_dims)
        expect(values.size == math.prod(shape), f"{values.size} values, expected {shape}")
        return values.reshape(shape)


def libsvm(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """USPS in the LIBSVM format: one image per line, 256 values in [-1, 1], labels from 1."""
    from sklearn.datasets import load_svmlight_file

    with reading(paths[0]):
        values, labels = load_svmlight_file(str(paths[0]), n_features=256, zero_based=False)
        values = values.toarray()
        expect(np.abs(values).max() <= 1, "values outside -1 to 1")  # and NaN
        pixels = np.rint((values + 1) * 127.5).astype(np.uint8).reshape(-1, 16, 16, 1)
        return pixels, labels.astype(np.int64) - 1


def mat(path: Path, key: str) -> np.ndarray:
    """One variable of a MATLAB file."""
    import scipy.io

    return _key(scipy.io.loadmat(path, variable_names=[key]), key)


def has_variable(path: Path, key: str) -> bool:
    """Whether a MATLAB file has a variable of this name."""
    import scipy.io

    return key in {name for name, *_ in scipy.io.whosmat(path)}


def svhn(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """X (32, 32, 3, n) and y (n, 1); the digit 0 is stored as 10."""
    with reading(paths[0]):
        pixels, labels = mat(paths[0], "X"), mat(paths[0], "y")
        expect(pixels.shape[:3] == (32, 32, 3), f"X is {pixels.shape}, expected (32, 32, 3, n)")
        return np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)), labels.ravel().astype(int) % 10


def affnist(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """affNISTdata with image (1600, n) and label_int."""
    with reading(paths[0]):
        data = mat(paths[0], "affNISTdata")[0, 0]
        pixels, labels = data["image"], data["label_int"]
        expect(len(pixels) == 1600, f"image is {pixels.shape}, expected (1600, n)")
        return np.ascontiguousarray(pixels.T).reshape(-1, 40, 40, 1), labels.ravel().astype(int)


def cifar(paths: list[Path], n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Records of n_labels bytes, the last one being the class, and 3072 bytes (3, 32, 32)."""
    records = []
    for path in paths:
        with reading(path):
            data = np.fromfile(path, np.uint8)
            width = n_labels + 3072
            expect(data.size % width == 0, f"{data.size} bytes, expected a multiple of {width}")
            records.append(data.reshape(-1, width))
    data = np.concatenate(records)
    return _channels_last(data[:, n_labels:]), data[:, n_labels - 1].astype(np.int64)


def _channels_last(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def imagenet32(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Downsampled ImageNet: data (n, 3072) of (3, 32, 32) each, and labels from 1."""
    pixels, labels = [], []
    for path in paths:
        with reading(path), np.load(path, allow_pickle=False) as file:
            rows = _key(file, "data")
            expect(rows.dtype == np.uint8, f"data is {rows.dtype}, expected uint8")
            pixels.append(_channels_last(rows))
            labels.append(_key(file, "labels").ravel().astype(np.int64) - 1)
    return np.concatenate(pixels), np.concatenate(labels)


def frgc(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """data (n, 3, w, h) in 0 to 255; labels are renumbered from 0."""
    import h5py

    with reading(paths[0]), h5py.File(paths[0], "r") as file:
        data, labels = _key(file, "data"), _key(file, "labels").ravel()
        expect(data.ndim == 4 and data.shape[1] == 3, f"data is {data.shape}, not (n, 3, w, h)")
        expect(1 < data.max() <= 255, f"values up to {data.max()}, expected 255")  # and NaN
        pixels = np.ascontiguousarray(data.swapaxes(1, 3).astype(np.uint8))
        return pixels, np.unique(labels, return_inverse=True)[1]
