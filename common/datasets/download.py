"""Data files that are what they should be: data/sources.yml says where they come from.

A file gets its final name only once its checksum is verified, a folder only once its archive is
unpacked. What was cut is resumed by the next try, and a second process waits for the first.
"""

import argparse
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
TIMEOUT = (10, 30)  # seconds to connect, seconds between two pieces

log = logging.getLogger("common.download")


def data_root(root: str | Path | None = None) -> Path:
    """Where data lies: the argument, else DATA_ROOT of the environment, else data/ here."""
    return Path(root or os.environ.get("DATA_ROOT") or SOURCES.parent).expanduser()


def sources() -> dict[str, dict]:
    """data/sources.yml, whose header explains the fields."""
    return yaml.safe_load(SOURCES.read_text(encoding="utf-8"))


def get(name: str, root: Path, needed: Collection[str] | None = None) -> None:
    """Fetches the files of a data set that root lacks; of these only what holds `needed`, if given.

    Raises UserError for an unknown name, for a set that no program may fetch, and for all that goes
    wrong on the way.
    """
    known = sources()
    if name not in known:
        raise UserError(f"{name} is no data set to download, expected one of {', '.join(known)}")
    if "files" not in known[name]:
        raise UserError(f"{name} cannot be downloaded: {known[name]['manual']}")
    files = known[name]["files"]
    if needed is not None:
        files = [file for file in files if any(_holds(file["path"], path) for path in needed)]
    if not files:
        raise UserError(f"{SOURCES.name} knows no source of {', '.join(needed)}")
    with _alone_in(root):
        for file in files:
            if not (root / file["path"]).exists():
                options = {key: file.get(key) for key in ("checksum", "size", "take")}
                fetch(root / file["path"], file["urls"], **options)


def _holds(folder: str, path: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def fetch(
    target: Path,
    urls: list[str],
    checksum: str | None = None,
    size: int | None = None,
    take: str | None = None,
) -> None:
    """Downloads from the first of urls that works; with `take`, from the archive that they hold.

    checksum is "md5:..." or "sha256:...". Without one the sha256 of the first download is kept in
    TARGET.sha256 and holds from then on. Raises UserError, and then target does not exist.
    """
    file = _beside(target, ".archive") if take else target
    if not file.exists():  # an archive is, when the unpacking was stopped
        _download(file, urls, checksum, size)
    if take:
        unpack(file, take, target)
        file.unlink()


def unpack(archive: Path, take: str, target: Path) -> None:
    """Writes one member or folder of a zip or tar as target, which exists only when complete.

    Raises UserError for a member that would land elsewhere (absolute, "..", a link) and for a
    damaged archive, which is removed.
    """
    temporary = _beside(target, ".unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    wanted = PurePosixPath(take).parts
    try:
        for name, kind, open_member in _members(archive):
            parts = PurePosixPath(name).parts
            if name.startswith("/") or ".." in parts:
                raise _Damaged(f"member {name!r} climbs out")
            if parts[: len(wanted)] != wanted or kind == "folder":
                continue
            if kind == "other":
                raise _Damaged(f"member {name!r} is no plain file")
            path = temporary.joinpath("taken", *parts[len(wanted) :])
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        if not (temporary / "taken").exists():
            raise _Damaged(f"no member {take}")
        os.replace(temporary / "taken", target)
    except _DAMAGE as error:
        archive.unlink()
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{archive} is no sound archive and was removed: {reason}") from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Damaged(Exception):
    pass


# what the archives' modules raise; RuntimeError also for an encrypted or unknown compression
_DAMAGE = (_Damaged, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
_DAMAGE += (RuntimeError,)  # of which Python's "not implemented" error is a kind


def _members(archive: Path) -> Iterator[tuple[str, str, Callable[[], BinaryIO]]]:
    """Every member's name, kind ("file", "folder", "other") and a function that opens it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                kind = "folder" if info.is_dir() else "file" if plain else "other"
                yield info.filename, kind, lambda info=info: opened.open(info)
    else:
        with tarfile.open(archive) as opened:
            for info in opened:
                kind = "folder" if info.isdir() else "file" if info.isfile() else "other"
                yield info.name, kind, lambda info=info: opened.extractfile(info)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time downloads into a folder.

    The lock is on the folder itself: it leaves no file, and the kernel drops it with its owner.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot download to {folder}: {error.strerror}; set DATA_ROOT") from error
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
    part, record = _beside(target, ".part"), _beside(target, ".sha256")
    first = checksum is None and not record.exists()
    if first:
        part.unlink(missing_ok=True)  # nothing could tell whether both halves belong together
    elif checksum is None:
        checksum = f"sha256:{record.read_text().strip()}"
    failures = []
    for url in urls:
        log.info("downloading %s from %s%s", target, url, f" ({size / 1e6:.1f} MB)" if size else "")
        try:
            _stream(url, part, size)
            _verify(part, checksum, size)
            if first:
                record.write_text(_hash(part, "sha256") + "\n")
                log.warning(
                    "no checksum is published for %s; kept its own in %s", target.name, record
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
    found = part.stat().st_size
    if found < (size or 1):
        raise UserError(f"connection cut at {found} of {size or 'unknown'} bytes, try again")
    if checksum:
        algorithm, expected = checksum.split(":")
        found = _hash(part, algorithm)
        if found != expected:
            part.unlink()
            raise UserError(f"{algorithm} is {found}, expected {expected}")


def _hash(path: Path, algorithm: str) -> str:
    import pooch  # a run whose data is there does not wait for it

    return pooch.file_hash(str(path), alg=algorithm)


def _stream(url: str, part: Path, size: int | None) -> None:
    """Completes part from url; raises UserError for the network, OSError for the disk."""
    if url.startswith("gdrive:"):
        return _drive(url.removeprefix("gdrive:"), part)
    import requests

    have = part.stat().st_size if part.exists() else 0
    if size and have == size:
        return None
    # identity: a .gz file must not be unpacked on the way
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()  # it is no beginning of this file
                return _stream(url, part, size)
            if not answer.ok:
                raise UserError(f"HTTP {answer.status_code} {answer.reason}")
            if answer.status_code != requests.codes.partial_content:
                have = 0
            length = int(answer.headers.get("Content-Length", 0))
            pieces = answer.iter_content(1 << 16)
            _save(pieces, part, have, have + length if length else size)
    except requests.RequestException as error:
        raise UserError(_reason(error)) from error


def _save(pieces: Iterator[bytes], part: Path, have: int, total: int | None) -> None:
    from tqdm import tqdm

    piece = next(pieces, b"")
    _refuse_page(piece)
    part.parent.mkdir(parents=True, exist_ok=True)
    if total and total - have > shutil.disk_usage(part.parent).free:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {total / 1e6:.1f} MB to store")
    options = {"unit": "B", "unit_scale": True, "disable": not sys.stderr.isatty()}
    with (
        open(part, "ab" if have else "wb") as file,
        tqdm(desc=part.stem, initial=have, total=total, **options) as bar,
    ):
        while piece:
            file.write(piece)
            bar.update(len(piece))
            piece = next(pieces, b"")


def _refuse_page(start: bytes) -> None:
    if start[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise UserError("a web page came instead of the file: a login, a quota or a wrong address")


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or "IncompleteRead" in str(
        error
    ):
        return "connection cut, try again"
    if "NameResolution" in str(error):
        return "no network, or no such host"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)


def _drive(drive_id: str, part: Path) -> None:
    import gdown

    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        gdown.download(
            id=drive_id, output=str(part), quiet=not sys.stderr.isatty(), timeout=TIMEOUT
        )
        with open(part, "rb") as file:
            _refuse_page(file.read(200))
    except Exception as error:  # gdown lets through what requests, its parser and the disk raise
        part.unlink(missing_ok=True)
        raise UserError(f"Google Drive: {_reason(error).strip().splitlines()[0]}") from error


def main() -> None:
    """Fetches one data set, or lists all that can be had."""
    parser = argparse.ArgumentParser("python -m common.download", description=main.__doc__)
    parser.add_argument("name", nargs="?", help="as in data/sources.yml; none: list them")
    parser.add_argument("--root", help="where to; else DATA_ROOT, else data/")
    options = parser.parse_args()
    if options.name:
        root = data_root(options.root)
        get(options.name, root)
        log.info("%s is complete in %s", options.name, root)
        return
    for name, source in sources().items():
        sizes = [file["size"] for file in source.get("files", [])]
        size = f"{sum(sizes) / 1e6:.0f} MB" if sizes and all(sizes) else ""
        if "manual" in source:
            size = "by hand"
        sys.stdout.write(f"{name:14} {size:>8}  {source['about']}; {source['licence']}\n")
