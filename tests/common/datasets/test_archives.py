"""download.unpack and download.fetch of archives."""

import hashlib
import tarfile
import zipfile

import pytest

from common.datasets import download
from tests.common.datasets.file_server import CONTENT, SHA256, names_in, tar, zipped
from tests.common.datasets.files import error_of


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name, target):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info, target


@pytest.mark.parametrize("pack", [tar, zipped])
def test_fetch_unpacks_a_folder(server, tmp_path, pack):
    packed = pack(("./top/in/a.txt", b"a"), ("top/in/deep/b.txt", b"b"), ("top/other", b"c"))
    server.files["/ok/x"] = packed
    checksum = "sha256:" + hashlib.sha256(packed).hexdigest()
    download.fetch(tmp_path / "out", [f"{server.url}/ok/x"], checksum, take="top/in")
    assert (tmp_path / "out/a.txt").read_bytes() == b"a"
    assert (tmp_path / "out/deep/b.txt").read_bytes() == b"b"
    assert names_in(tmp_path) == ["out"] and names_in(tmp_path / "out") == ["a.txt", "deep"]


def test_fetch_unpacks_a_file(server, tmp_path):
    server.files["/ok/x"] = zipped(("test.mat", b"content"))
    download.fetch(tmp_path / "affNIST_test.mat", [f"{server.url}/ok/x"], take="test.mat")
    assert (tmp_path / "affNIST_test.mat").read_bytes() == b"content"


@pytest.mark.parametrize(
    "packed",
    [
        tar(("in/a", b"a"), ("../evil", b"e")),
        tar(("in/a", b"a"), ("in/../../evil", b"e")),
        tar(("in/a", b"a"), ("/evil", b"e")),
        tar(link("in/up", ".."), ("in/up/evil", b"e")),
        tar(("in/a", b"a"), link("in/b", "/etc/passwd", tarfile.LNKTYPE)),
        tar(("in/a", b"a"), link("in/pipe", "", tarfile.FIFOTYPE)),
        zipped(("in/a", b"a"), ("../evil", b"e")),
        zipped(("in/a", b"a"), ("/evil", b"e")),
        zipped(zip_link("in/up", ".."), ("in/up/evil", b"e")),
    ],
)
def test_members_outside_the_archive_are_refused(tmp_path, packed):
    folder = tmp_path / "data"
    folder.mkdir()
    archive = folder / "x.archive"
    archive.write_bytes(packed)
    line = error_of(download.unpack, archive, "in", folder / "in")
    assert "has a path outside the archive" in line or "is not a regular file" in line
    assert names_in(folder) == [] and names_in(tmp_path) == ["data"]


@pytest.mark.parametrize("packed", [tar(("in/a", CONTENT)), zipped(("in/a", CONTENT))])
def test_cut_archive_is_deleted(tmp_path, packed):
    archive = tmp_path / "x.archive"
    archive.write_bytes(packed[: len(packed) // 2])
    assert "is corrupt and was deleted" in error_of(download.unpack, archive, "in", tmp_path / "in")
    assert names_in(tmp_path) == []


def test_archive_without_the_member_is_refused(tmp_path):
    archive = tmp_path / "x.archive"
    archive.write_bytes(zipped(("other", b"")))
    assert "no member in" in error_of(download.unpack, archive, "in", tmp_path / "in")


def test_killed_unpacking_is_repeated_without_download(server, tmp_path):
    (tmp_path / "out.archive").write_bytes(zipped(("in/a", b"a")))
    (tmp_path / "out.unpacking/taken").mkdir(parents=True)
    (tmp_path / "out.unpacking/taken/half").write_bytes(b"")
    download.fetch(tmp_path / "out", [f"{server.url}/ok/x"], SHA256, take="in")
    assert names_in(tmp_path) == ["out"] and names_in(tmp_path / "out") == ["a"]
    assert server.requests == []
