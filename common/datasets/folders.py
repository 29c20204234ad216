"""Reads a folder of images of any formats and sizes as one array; skips unreadable files."""

import hashlib
import logging
import math
import os
import sys
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

from common import UserError, images

EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
DEFAULT_SIZE = 64  # pixels, for folders whose images differ in size

File = tuple[Path, tuple[str, ...]]  # an image, and the parts of its path relative to the folder

log = logging.getLogger(__name__)


def read(
    folders: list[Path],
    size: int | tuple[int, int] | None,
    max_bad: float,
    allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> tuple[np.ndarray, list[File], list[tuple[str, str]]]:
    """Pixels uint8 (n, h, w, c), their n files, and (path, reason) of skipped files.

    size and max_bad as in `datasets.load`; allocate: shape -> uint8 array for the pixels (a memory
    map, for example), None: np.empty. Raises UserError.
    """
    listed, skipped = find(folders)
    files = [file for file, _ in listed]
    (height, width), gray = _survey(files, size)
    shape = (len(files), height, width, 1 if gray else 3)
    pixels = allocate(shape) if allocate else np.empty(shape, np.uint8)

    def decode(i: int) -> str | None:
        try:
            image = images.load(files[i], "L" if gray else "RGB")
        except UserError as error:
            return str(error).removeprefix(f"{files[i]}: ".replace("\n", "\\n"))
        if image.shape[:2] != (height, width):
            image = images.resize(image, (height, width) if size is None else size)
        pixels[i] = image[..., None] if gray else image
        return None

    from tqdm import tqdm

    with ThreadPool() as pool:
        reasons = pool.imap(decode, range(len(files)), chunksize=8)
        bar = tqdm(reasons, "reading", len(files), disable=not sys.stderr.isatty(), unit="image")
        good = []
        for i, reason in enumerate(bar):
            if reason is None:
                pixels[len(good)] = pixels[i]  # a copy of the array would double the memory
                good.append(i)
            else:
                skipped.append((str(files[i]), reason))
    check_skipped(skipped, len(good), max_bad, folders[0])
    return pixels[: len(good)], [listed[i] for i in good], skipped


def find(folders: list[Path]) -> tuple[list[File], list[tuple[str, str]]]:
    """All images below some folders, and (path, reason) of unreadable sub-folders and names.

    Raises UserError for a folder without images.
    """
    listed, skipped = [], []
    for folder in folders:
        files, unreadable = list_images(folder)
        listed += [(file, file.relative_to(folder).parts) for file in files]
        skipped += unreadable
    return listed, skipped


def list_images(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """All images below a folder in order, and (path, reason) of unreadable sub-folders and names.

    An image instead of a folder is a folder of one. Raises UserError without images.
    """
    if os.path.isfile(folder) and folder.suffix.lower() in EXTENSIONS:
        return [folder], []
    if not os.path.isdir(folder):
        problem = "is not an image" if os.path.isfile(folder) else "does not exist"
        raise UserError(f"{folder} {problem}: expected an image or a folder of images")
    files, skipped, visited = [], [], set()

    def skip(error: OSError) -> None:
        skipped.append((str(error.filename), error.strerror.lower()))

    for parent, folders, names in os.walk(folder, onerror=skip, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:  # a symbolic link to a parent
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or not name.lower().endswith(EXTENSIONS):
                continue
            try:
                name.encode()
                files.append(Path(parent, name))
            except UnicodeEncodeError:  # cannot be written to predictions.csv
                skipped.append((ascii(os.path.join(parent, name)), "its name is not UTF-8"))
    if not files and not skipped:
        raise UserError(f"{folder} contains no images ({', '.join(EXTENSIONS)})")
    return files, skipped


def _survey(files: list[Path], size: int | tuple[int, int] | None) -> tuple[tuple[int, int], bool]:
    """Height and width to load the images in, and whether all are gray, from the file headers."""
    sizes, gray = set(), True
    for file in files:
        try:
            if not file.is_file():  # a pipe would block forever
                continue
            with Image.open(file, formats=images.FORMATS) as image:
                gray = gray and (image.mode in ("1", "L", "LA", "I") or image.mode[:4] == "I;16")
                is_rotated = image.getexif().get(0x0112, 1) >= 5  # by 90 degrees
                shape = (image.height, image.width)
                sizes.add(shape[::-1] if is_rotated else shape)
        except Exception:  # decoding fails too and gives the reason
            continue
        if not gray and (size is not None or len(sizes) > 1):
            break  # no other header can change the result
    if size is not None:
        return ((size, size) if isinstance(size, int) else size), gray
    if len(sizes) > 1:
        log.info("the images differ in size: cropping to squares of %d pixels", DEFAULT_SIZE)
    return (sizes.pop() if len(sizes) == 1 else (DEFAULT_SIZE, DEFAULT_SIZE)), gray


def check_skipped(
    skipped: list[tuple[str, str]], n_good: int, max_bad: float, folder: Path
) -> None:
    """Logs skipped files; raises UserError if they are more than a fraction max_bad of all.

    skipped: (path, reason) each; n_good: number of images that were read; folder: for the message.
    """
    for path, reason in skipped:
        log.warning("skipped %r: %s", path, reason)
    if not skipped:
        return
    n_all = len(skipped) + n_good
    count = f"{len(skipped)} of {n_all} images cannot be read"
    log.warning("%s", count)
    if n_good == 0 or len(skipped) / n_all > max_bad:
        path, reason = skipped[0]
        raise UserError(
            f"{folder}: {count}, more than dataset.max_bad {max_bad} allows (first {path!r}: "
            f"{reason}): fix or delete them" + ", or raise dataset.max_bad" * (n_good > 0)
        )


def classes(files: list[File]) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels (n,) and class names from the top-level sub-folders.

    None if there are not two of them, or if a file is in none.
    """
    parents = [parts[0] if len(parts) > 1 else None for _, parts in files]
    if None in parents or len(set(parents)) < 2:
        return None, None
    names, labels = np.unique(parents, return_inverse=True)
    return labels.astype(np.int64), names.tolist()


def checksum(files: list[File]) -> str:
    """sha256 of all names and sizes, and of the first 64 kB of 64 files spread over the list."""
    digest = hashlib.sha256()
    step = math.ceil(len(files) / 64)
    for i, (path, parts) in enumerate(files):
        digest.update(f"{'/'.join(parts)}\0{path.stat().st_size}\0".encode())
        if i % step == 0:
            with open(path, "rb") as opened:
                digest.update(opened.read(1 << 16))
    return digest.hexdigest()
