"""A folder of images as one array: those of all kinds and sizes, less what cannot be read."""

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
DEFAULT_SIZE = 64  # of a folder whose images differ in size

File = tuple[Path, tuple[str, ...]]  # an image and the parts of its name below its folder

log = logging.getLogger(__name__)


def read(
    folders: list[Path],
    size: int | tuple[int, int] | None,
    max_bad: float,
    allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> tuple[np.ndarray, list[File], list[tuple[str, str]]]:
    """Pixels uint8 (n, h, w, c), their n files, and (path, reason) of what was skipped.

    size and max_bad as in `datasets.load`; allocate: shape -> where the pixels go, by
    default memory. Raises UserError.
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
                pixels[len(good)] = pixels[i]  # in place: a copy would double the memory
                good.append(i)
            else:
                skipped.append((str(files[i]), reason))
    check_skipped(skipped, len(good), max_bad, folders[0])
    return pixels[: len(good)], [listed[i] for i in good], skipped


def find(folders: list[Path]) -> tuple[list[File], list[tuple[str, str]]]:
    """All images below some folders, and (path, reason) of what cannot be looked into.

    Raises UserError for a folder without any.
    """
    listed, skipped = [], []
    for folder in folders:
        files, unreadable = list_images(folder)
        listed += [(file, file.relative_to(folder).parts) for file in files]
        skipped += unreadable
    return listed, skipped


def list_images(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """All images below a folder by name, and (path, reason) of what cannot be looked into."""
    if os.path.isfile(folder) and folder.suffix.lower() in EXTENSIONS:
        return [folder], []
    if not os.path.isdir(folder):
        found = "is not an image" if os.path.isfile(folder) else "does not exist"
        raise UserError(f"{folder} {found}: expected an image or a folder of images")
    files, skipped, seen = [], [], set()

    def failed(error: OSError) -> None:
        skipped.append((str(error.filename), error.strerror.lower()))

    for place, folders, names in os.walk(folder, onerror=failed, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:  # a link back up
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or not name.lower().endswith(EXTENSIONS):
                continue
            try:
                name.encode()
                files.append(Path(place, name))
            except UnicodeEncodeError:  # it could not be written to predictions.csv
                skipped.append((ascii(os.path.join(place, name)), "its name is not UTF-8"))
    if not files and not skipped:
        raise UserError(f"{folder} contains no images ({', '.join(EXTENSIONS)})")
    return files, skipped


def _survey(files: list[Path], size: int | tuple[int, int] | None) -> tuple[tuple[int, int], bool]:
    """The height and width to load in, and whether all are gray; from as few headers as will do."""
    sizes, gray = set(), True
    for file in files:
        try:
            if not file.is_file():  # a pipe would block for ever
                continue
            with Image.open(file, formats=images.FORMATS) as image:
                gray = gray and (image.mode in ("1", "L", "LA", "I") or image.mode[:4] == "I;16")
                turned = image.getexif().get(0x0112, 1) >= 5
                sizes.add((image.width, image.height) if turned else (image.height, image.width))
        except Exception:  # decoding meets it again and gives the reason
            continue
        if not gray and (size is not None or len(sizes) > 1):
            break
    if size is not None:
        return ((size, size) if isinstance(size, int) else size), gray
    if len(sizes) > 1:
        log.info("the images differ in size: loading the centre square at %d", DEFAULT_SIZE)
    return (sizes.pop() if len(sizes) == 1 else (DEFAULT_SIZE, DEFAULT_SIZE)), gray


def check_skipped(
    skipped: list[tuple[str, str]], n_good: int, max_bad: float, folder: Path
) -> None:
    """Logs every file that was skipped; raises UserError if they are too many beside n_good."""
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
    """Labels and names from top-level sub-folders; None if a file lies in none, or all in one."""
    tops = [parts[0] if len(parts) > 1 else None for _, parts in files]
    if None in tops or len(set(tops)) < 2:
        return None, None
    names, labels = np.unique(tops, return_inverse=True)
    return labels.astype(np.int64), names.tolist()


def checksum(files: list[File]) -> str:
    """sha256 of every name and size and of the first 64 kB of 64 files spread over the list."""
    digest = hashlib.sha256()
    step = math.ceil(len(files) / 64)
    for i, (path, parts) in enumerate(files):
        digest.update(f"{'/'.join(parts)}\0{path.stat().st_size}\0".encode())
        if i % step == 0:
            with open(path, "rb") as opened:
                digest.update(opened.read(1 << 16))
    return digest.hexdigest()
