"""Folders of images decoded once into a file on disk, which is memory-mapped from then on."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np

from common import datasets
from common.datasets import download, folders

log = logging.getLogger(__name__)

# pixels uint8 (n, h, w, c), their files, and (path, reason) of skipped files
Content = tuple[np.ndarray, list[folders.File], list[tuple[str, str]]]


def load(
    name: str,
    split: str = "",
    root: str | Path | None = None,
    path: str | Path | None = None,
    size: int | None = None,
    max_bad: float = 0.01,
) -> datasets.Images:
    """As `common.datasets.load`, but the pixels of a folder are a read-only memory-mapped file.

    Memory use then does not grow with the number of images. The file is in DATA_ROOT/cache and is
    rebuilt when the folder changes; if it cannot be written, the pixels are kept in memory.
    """

    def read(paths: list[Path], size: int | None, max_bad: float) -> Content:
        return _read(paths, size, max_bad, download.data_root(root) / "cache")

    return datasets.load(name, split, root, path, size, max_bad, read)


def _read(paths: list[Path], size: int | None, max_bad: float, cache: Path) -> Content:
    """As `folders.read`, through the folder `cache`."""
    files, _ = folders.find(paths)
    key = hashlib.sha256(repr([size, *map(os.path.abspath, paths)]).encode()).hexdigest()[:16]
    name = f"{key}-{_fingerprint(files)[:16]}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = open(cache / f"{key}.lock", "w")
    except OSError as error:
        log.warning("no cache in %s (%s): the images are kept in memory", cache, error.strerror)
        return folders.read(paths, size, max_bad)
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits, then reads the cache
        cached = _open(cache / name, files)
        if cached is None:
            for old in cache.glob(f"{key}-*"):  # outdated, or incomplete
                old.unlink()
            _build(cache / name, paths, size, max_bad)
            return _open(cache / name, files)
    pixels, good, skipped = cached
    folders.check_skipped(skipped, len(good), max_bad, paths[0])
    return pixels, good, skipped


def _fingerprint(files: list[folders.File]) -> str:
    """Hash of the names, sizes and modification times of all files."""
    digest = hashlib.sha256()
    for path, parts in files:
        with contextlib.suppress(OSError):  # decoding fails on it too and reports the reason
            status = path.stat()
            text = f"{'/'.join(parts)}\0{status.st_size}\0{status.st_mtime_ns}\0"
            digest.update(text.encode())
    return digest.hexdigest()


def _open(path: Path, files: list[folders.File]) -> Content | None:
    """What `_build` wrote, or None if it is incomplete."""
    try:
        header = json.loads(path.with_suffix(".json").read_text())
        pixels = np.memmap(path.with_suffix(".pixels"), np.uint8, "r", shape=tuple(header["shape"]))
    except (OSError, ValueError):
        return None
    good = [files[i] for i in header["good"]]
    return pixels, good, [tuple(each) for each in header["skipped"]]


def _build(path: Path, paths: list[Path], size: int | None, max_bad: float) -> None:
    """Decodes all images into PATH.pixels; PATH.json is written last and marks it as complete.

    Raises UserError as `folders.read`, and then leaves no file behind.
    """
    pixels, header = path.with_suffix(".pixels"), path.with_suffix(".json")

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        n_bytes = int(np.prod(shape, dtype=np.int64))
        log.info("building a cache of %d images, %.1f MB: %s", shape[0], n_bytes / 1e6, pixels)
        with open(pixels, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk is an error here, not later
        return np.memmap(pixels, np.uint8, "r+", shape=shape)

    try:
        values, files, skipped = folders.read(paths, size, max_bad, allocate)
        numbers = {file: i for i, (file, _) in enumerate(folders.find(paths)[0])}
        good = [numbers[file] for file, _ in files]
        text = json.dumps({"shape": values.shape, "good": good, "skipped": skipped})
        values.flush()
        os.truncate(pixels, values.nbytes)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(header)
    except BaseException:
        pixels.unlink(missing_ok=True)
        raise
