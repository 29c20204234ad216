"""Downloads and verifies the files of datasets, from the sources in data/sources.yml.

A file gets its final name once its checksum is verified, a folder once its archive is unpacked. An
interrupted download is resumed by the next attempt; a second process waits for the first.
"""

import contextlib
import errno
import fcntl
import logging
import lzma
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import yaml

from common import UserError

SOURCES = Path(__file__).parents[2] / "data" / "sources.yml"
TIMEOUT = (10, 30)  # seconds to connect, and between two chunks

log = logging.getLogger(__name__)


def data_root(root: str | Path | None = None) -> Path:
    """Folder of the datasets: the argument, else $DATA_ROOT, else data/ of the repository."""
    return Path(root or os.environ.get("DATA_ROOT") or SOURCES.parent).expanduser()


def sources() -> dict[str, dict]:
    """The content of data/sources.yml, whose header explains the fields."""
    return yaml.safe_load(SOURCES.read_text(encoding="utf-8"))


def get(name: str, root: Path, needed: Collection[str] | None = None) -> None:
    """Downloads the files of a dataset that are missing in root; needed: only these paths.

    Raises UserError for an unknown name, for a dataset that cannot be downloaded automatically, and
    if the download fails.
    """
    known = sources()
    if name not in known:
        raise UserError(f"no dataset {name} to download: expected one of {', '.join(known)}")
    if "files" not in known[name]:
        raise UserError(f"{name} cannot be downloaded: {known[name]['manual']}")
    files = known[name]["files"]
    if needed is not None:
        files = [file for file in files if any(_contains(file["path"], path) for path in needed)]
    if not files:
        raise UserError(f"{SOURCES.name} has no source of {', '.join(needed or [name])}")
    with _lock(root):
        for file in files:
            if not (root / file["path"]).exists():
                options = {key: file.get(key) for key in ("checksum", "size", "take")}
                fetch(root / file["path"], file["urls"], **options)


def _contains(folder: str, path: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def fetch(
    target: Path,
    urls: list[str],
    checksum: str | None = None,
    size: int | None = None,
    take: str | None = None,
) -> None:
    """Downloads target from the first of urls that works.

    checksum: "md5:..." or "sha256:..."; None: the sha256 of the first download is saved in
    TARGET.sha256 and required from then on. size: in bytes. take: the member or folder to unpack
    from the zip or tar at the urls. Raises UserError, and then target does not exist.
    """
    file = _sibling(target, ".archive") if take else target
    if not file.exists():  # an archive exists if unpacking was interrupted
        _download(file, urls, checksum, size)
    if take:
        unpack(file, take, target)
        file.unlink()


def unpack(archive: Path, take: str, target: Path) -> None:
    """Unpacks a member or folder of a zip or tar as target, which exists only when complete.

    Raises UserError for a member outside of the archive (absolute, "..", a link) and for a damaged
    archive, which is deleted.
    """
    temporary = _sibling(target, ".unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    prefix = PurePosixPath(take).parts
    try:
        for name, kind, open_member in _members(archive):
            parts = PurePosixPath(name).parts
            if name.startswith("/") or ".." in parts:
                raise _Damaged(f"member {name!r} has a path outside the archive")
            if parts[: len(prefix)] != prefix or kind == "folder":
                continue
            if kind == "other":
                raise _Damaged(f"member {name!r} is not a regular file")
            path = temporary.joinpath("taken", *parts[len(prefix) :])
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        if not (temporary / "taken").exists():
            raise _Damaged(f"no member {take}")
        os.replace(temporary / "taken", target)
    except _DAMAGE as error:
        archive.unlink()
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{archive} is corrupt and was deleted: {reason}") from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Damaged(Exception):
    pass


# Raised by zipfile and tarfile. RuntimeError: encrypted archives and, as a subclass of it, unknown
# compression methods.
_DAMAGE = (_Damaged, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
_DAMAGE += (RuntimeError,)


def _members(archive: Path) -> Iterator[tuple[str, str, Callable[[], BinaryIO]]]:
    """Name, kind ("file", "folder", "other") and an open function of every member."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                is_file = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                kind = "folder" if info.is_dir() else "file" if is_file else "other"
                yield info.filename, kind, lambda info=info: opened.open(info)
    else:
        with tarfile.open(archive) as opened:
            for info in opened:
                kind = "folder" if info.isdir() else "file" if info.isfile() else "other"
                yield info.name, kind, lambda info=info: opened.extractfile(info)


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lets one process at a time download into a folder.

    Locks the folder itself: no file is left, and the lock ends with the process.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; set DATA_ROOT") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another download to %s", folder)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _download(target: Path, urls: list[str], checksum: str | None, size: int | None) -> None:
    part, record = _sibling(target, ".part"), _sibling(target, ".sha256")
    is_first = checksum is None and not record.exists()
    if is_first:
        part.unlink(missing_ok=True)  # nothing could tell whether both halves belong together
    elif checksum is None:
        checksum = f"sha256:{record.read_text().strip()}"
    failures = []
    for url in urls:
        log.info("downloading %s from %s%s", target, url, f" ({size / 1e6:.1f} MB)" if size else "")
        try:
            _stream(url, part, size)
            _verify(part, checksum, size)
            if is_first:
                record.write_text(_hash(part, "sha256") + "\n")
                log.warning(
                    "no checksum is published for %s: saved its sha256 in %s", target.name, record
                )
            os.replace(part, target)
            return
        except UserError as error:
            failures.append(f"{url}: {error}")
        except OSError as error:
            part.unlink(missing_ok=True)
            raise UserError(f"cannot write {part}: {error.strerror or error}") from error
    raise UserError(
        f"cannot download {target.name.removesuffix('.archive')} ({'; '.join(failures)})"
    )


def _verify(part: Path, checksum: str | None, size: int | None) -> None:
    n_bytes = part.stat().st_size
    if n_bytes < (size or 1):
        raise UserError(f"connection lost at {n_bytes} of {size or 'unknown'} bytes, try again")
    if checksum:
        algorithm, expected = checksum.split(":")
        digest = _hash(part, algorithm)
        if digest != expected:
            part.unlink()
            raise UserError(f"{algorithm} is {digest}, expected {expected}")


def _hash(path: Path, algorithm: str) -> str:
    import pooch  # slow to import, and not needed if all files exist

    return pooch.file_hash(str(path), alg=algorithm)


def _stream(url: str, part: Path, size: int | None) -> None:
    """Downloads or resumes part; raises UserError for the network, OSError for the disk."""
    if url.startswith("gdrive:"):
        return _download_from_drive(url.removeprefix("gdrive:"), part)
    import requests

    n_bytes = part.stat().st_size if part.exists() else 0
    if size and n_bytes == size:
        return None
    # identity: .gz files must not be decompressed in transit
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={n_bytes}-"} if n_bytes else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()  # longer than the file: not a part of it
                return _stream(url, part, size)
            if not response.ok:
                raise UserError(f"HTTP {response.status_code} {response.reason}")
            if response.status_code != requests.codes.partial_content:
                n_bytes = 0
            length = int(response.headers.get("Content-Length", 0))
            chunks = response.iter_content(1 << 16)
            _save(chunks, part, n_bytes, n_bytes + length if length else size)
    except requests.RequestException as error:
        raise UserError(_reason(error)) from error


def _save(chunks: Iterator[bytes], part: Path, n_bytes: int, total: int | None) -> None:
    """Appends chunks to the first n_bytes of part."""
    from tqdm import tqdm

    chunk = next(chunks, b"")
    _refuse_page(chunk)
    part.parent.mkdir(parents=True, exist_ok=True)
    if total and total - n_bytes > shutil.disk_usage(part.parent).free:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {total / 1e6:.1f} MB to store")
    options = {"unit": "B", "unit_scale": True, "disable": not sys.stderr.isatty()}
    with (
        open(part, "ab" if n_bytes else "wb") as file,
        tqdm(desc=part.stem, initial=n_bytes, total=total, **options) as bar,
    ):
        while chunk:
            file.write(chunk)
            bar.update(len(chunk))
            chunk = next(chunks, b"")


def _refuse_page(start: bytes) -> None:
    if start[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise UserError("got a web page instead of the file: a login, a quota or a wrong address")


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "timed out"
    is_cut = isinstance(error, requests.exceptions.ChunkedEncodingError)
    if is_cut or "IncompleteRead" in str(error):
        return "connection lost, try again"
    if "NameResolution" in str(error):
        return "no network or no such host"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)


def _download_from_drive(drive_id: str, part: Path) -> None:
    import gdown

    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        gdown.download(
            id=drive_id, output=str(part), quiet=not sys.stderr.isatty(), timeout=TIMEOUT
        )
        with open(part, "rb") as file:
            _refuse_page(file.read(200))
    except Exception as error:  # gdown passes on errors of requests, its parser and the disk
        part.unlink(missing_ok=True)
        raise UserError(f"Google Drive: {_reason(error).strip().splitlines()[0]}") from error
