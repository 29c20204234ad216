"""Reads a folder of images of any formats and sizes as one array; skips unreadable files."""

import functools
import hashlib
import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from common import UserError, images

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".png", ".apng", ".gif", ".bmp")
EXTENSIONS += (".tif", ".tiff", ".webp", ".pbm", ".pgm", ".pnm", ".ppm")
HEIF_EXTENSIONS = (".heic", ".heif", ".hif")  # read if pillow-heif is installed
# Images of other formats: raw files of cameras, and others.
UNREAD_EXTENSIONS = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq"),
    *(".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2"),
    *(".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    *(".ai", ".avif", ".bpg", ".cur", ".dcm", ".dds", ".dib", ".emf", ".eps", ".exr"),
    *(".fit", ".fits", ".fts", ".hdr", ".icns", ".ico", ".j2k", ".jp2", ".jpf"),
    *(".jpm", ".jpx", ".jxl", ".jxr", ".pam", ".pcx", ".pfm", ".pic", ".psb", ".psd", ".qoi"),
    *(".sgi", ".svg", ".svgz", ".tga", ".wmf", ".xbm", ".xcf", ".xpm"),
)
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
    if os.path.isfile(folder) and is_image(folder):
        return [folder], []
    if not os.path.isdir(folder):
        problem = "is not an image" if os.path.isfile(folder) else "does not exist"
        unread = describe_unread([folder.name]) or "expected an image or a folder of images"
        raise UserError(f"{folder} {problem}: {unread}")
    files, skipped, visited, others = [], [], set(), []

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
            if name.startswith("."):
                continue
            if not is_image(name):
                others.append(name)
                continue
            try:
                name.encode()
                files.append(Path(parent, name))
            except UnicodeEncodeError:  # cannot be written to predictions.csv
                skipped.append((ascii(os.path.join(parent, name)), "its name is not UTF-8"))
    if not files and not skipped:
        unread = describe_unread(others)
        known = ", ".join(EXTENSIONS)
        raise UserError(f"{folder} contains no images ({known})" + f"; {unread}" * bool(unread))
    log_unread(folder, others)
    return files, skipped


def is_image(path: str | Path) -> bool:
    """Whether a file has the suffix of an image that can be read here."""
    suffix = _suffix(path)
    return suffix in EXTENSIONS or (suffix in HEIF_EXTENSIONS and images.can_read_heif())


def _suffix(path: str | Path) -> str:
    return os.path.splitext(path)[1].lower()


def describe_unread(names: Iterable[str | Path]) -> str:
    """The image files among these that are not read, by suffix, and how to read them; or ""."""
    suffixes = Counter(_suffix(name) for name in names if not is_image(name))
    known = UNREAD_EXTENSIONS + HEIF_EXTENSIONS
    unread = {suffix: n for suffix, n in suffixes.most_common() if suffix in known}
    if not unread:
        return ""
    total = sum(unread.values())
    text = f"{total} image file{'s are' * (total > 1) or ' is'} not read: "
    text += ", ".join(f"{n} {suffix}" for suffix, n in unread.items())
    if heif := [suffix for suffix in unread if suffix in HEIF_EXTENSIONS]:
        text += f"; to read {' and '.join(heif)}, install {images.HEIF_EXTRA}"
    if len(unread) > len(heif):
        text += "; convert the others to PNG or JPEG" if heif else "; convert them to PNG or JPEG"
    return text


def log_unread(folder: Path, names: Iterable[str | Path]) -> None:
    """Logs image files of a folder that are not read, counted by suffix, in one line."""
    if unread := describe_unread(names):
        _warn_once(f"{folder}: {unread}")


@functools.lru_cache(maxsize=1000)  # a command may list a folder several times
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def _survey(files: list[Path], size: int | tuple[int, int] | None) -> tuple[tuple[int, int], bool]:
    """Height and width to load the images in, and whether all are gray, from the file headers."""
    sizes, gray = set(), True
    for file in files:
        try:
            header = images.header(file)
        except UserError:  # decoding fails too and gives the reason
            continue
        gray = gray and header.is_gray
        sizes.add(header.size)
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
