"""From common.datasets to batches: a folder of images becomes a cache on disk, mapped to memory."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import datasets
from common.datasets import download, folders

log = logging.getLogger(__name__)


def load(
    name: str,
    split: str = "",
    root: str | Path | None = None,
    path: str | Path | None = None,
    size: int | None = None,
    max_bad: float = 0.01,
) -> datasets.Images:
    """As `common.datasets.load`, but the pixels of a folder are a read-only map of a cache file.

    Memory then stays flat in the number of images. The cache is built once, below DATA_ROOT/cache,
    and again when a file of the folder changed; where none can be written the pixels are in memory.
    """

    def read(
        found: list[Path], size: int | None, max_bad: float
    ) -> tuple[np.ndarray, list[folders.File], list[tuple[str, str]]]:
        return _read(found, size, max_bad, download.data_root(root) / "cache")

    return datasets.load(name, split, root, path, size, max_bad, read)


def _read(
    found: list[Path], size: int | None, max_bad: float, place: Path
) -> tuple[np.ndarray, list[folders.File], list[tuple[str, str]]]:
    """As `folders.read`, from the cache in the folder `place`."""
    listed, _ = folders.find(found)
    which = hashlib.sha256(repr([size, *map(os.path.abspath, found)]).encode()).hexdigest()[:16]
    name = f"{which}-{_fingerprint(listed)[:16]}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = open(place / f"{which}.lock", "w")
    except OSError as error:
        log.warning("no cache in %s (%s): the images are kept in memory", place, error.strerror)
        return folders.read(found, size, max_bad)
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, and finds the cache
        cached = _open(place / name, listed)
        if cached is None:
            for old in place.glob(f"{which}-*"):  # of another state of the folder, or cut short
                old.unlink()
            _build(place / name, found, size, max_bad)
            return _open(place / name, listed)
    pixels, files, skipped = cached
    folders.check_skipped(skipped, len(files), max_bad, found[0])
    return pixels, files, skipped


def _fingerprint(listed: list[folders.File]) -> str:
    """Of the names, sizes and times of change of all files."""
    digest = hashlib.sha256()
    for path, parts in listed:
        with contextlib.suppress(OSError):  # decoding meets it again and gives the reason
            status = path.stat()
            text = f"{'/'.join(parts)}\0{status.st_size}\0{status.st_mtime_ns}\0"
            digest.update(text.encode())
    return digest.hexdigest()


def _open(
    path: Path, listed: list[folders.File]
) -> tuple[np.ndarray, list[folders.File], list[tuple[str, str]]] | None:
    """What `_build` wrote, or None if it did not end."""
    try:
        about = json.loads(path.with_suffix(".json").read_text())
        pixels = np.memmap(path.with_suffix(".pixels"), np.uint8, "r", shape=tuple(about["shape"]))
    except (OSError, ValueError):
        return None
    files = [listed[i] for i in about["good"]]
    return pixels, files, [tuple(each) for each in about["skipped"]]


def _build(path: Path, found: list[Path], size: int | None, max_bad: float) -> None:
    """Decodes all images into PATH.pixels; PATH.json, which is written last, says that it is whole.

    Raises UserError as `folders.read`, and leaves nothing then.
    """
    pixels, about = path.with_suffix(".pixels"), path.with_suffix(".json")

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        n_bytes = int(np.prod(shape, dtype=np.int64))
        log.info("building a cache of %d images, %.1f MB: %s", shape[0], n_bytes / 1e6, pixels)
        with open(pixels, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk is an error here, not later
        return np.memmap(pixels, np.uint8, "r+", shape=shape)

    try:
        values, files, skipped = folders.read(found, size, max_bad, allocate)
        numbers = {file: i for i, (file, _) in enumerate(folders.find(found)[0])}
        text = json.dumps(
            {
                "shape": values.shape,
                "good": [numbers[file] for file, _ in files],
                "skipped": skipped,
            }
        )
        values.flush()
        os.truncate(pixels, values.nbytes)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(about)
    except BaseException:
        pixels.unlink(missing_ok=True)
        raise


def batches(
    images: np.ndarray, batch_size: int, order: Tensor | None = None, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 batches (b, c, h, w), channels last in memory, and their indices (b,).

    order (m,): the indices to go through, in that order; default is 0, 1, ... Starts at batch
    number `first`. A last batch of one joins the one before: batch norm cannot learn from one.
    """
    order = torch.arange(len(images)) if order is None else order.cpu()
    for start, end in list(bounds(len(order), batch_size))[first:]:
        indices = order[start:end]
        pixels = np.asarray(images[indices.numpy()])  # a copy, also of what is mapped
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2), indices


def bounds(n: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """Where each batch of n images starts and ends."""
    for start in range(0, n, batch_size):
        if n - start > 1 or start == 0:
            end = min(start + batch_size, n)
            yield start, end + 1 if n - end == 1 else end
