"""What lies in an archive becomes the target, and nothing else does."""

import hashlib
import tarfile
import zipfile

import pytest

from common.datasets import download
from tests.common.file_server import CONTENT, SHA256, left, refusal, tar, zipped


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_link(name, target):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info, target


@pytest.mark.parametrize("pack", [tar, zipped])
def test_a_folder_of_an_archive_becomes_the_target(server, tmp_path, pack):
    packed = pack(("./top/in/a.txt", b"a"), ("top/in/deep/b.txt", b"b"), ("top/other", b"c"))
    server.files["/ok/x"] = packed
    checksum = "sha256:" + hashlib.sha256(packed).hexdigest()
    download.fetch(tmp_path / "out", [f"{server.url}/ok/x"], checksum, take="top/in")
    assert (tmp_path / "out/a.txt").read_bytes() == b"a"
    assert (tmp_path / "out/deep/b.txt").read_bytes() == b"b"
    assert left(tmp_path) == ["out"] and left(tmp_path / "out") == ["a.txt", "deep"]


def test_a_file_of_an_archive_becomes_the_target(server, tmp_path):
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
def test_members_that_climb_out_are_refused_and_nothing_is_unpacked(tmp_path, packed):
    folder = tmp_path / "data"
    folder.mkdir()
    archive = folder / "x.archive"
    archive.write_bytes(packed)
    line = refusal(download.unpack, archive, "in", folder / "in")
    assert "climbs out" in line or "no plain file" in line
    assert left(folder) == [] and left(tmp_path) == ["data"]


@pytest.mark.parametrize("packed", [tar(("in/a", CONTENT)), zipped(("in/a", CONTENT))])
def test_a_cut_archive_is_refused_and_removed(tmp_path, packed):
    archive = tmp_path / "x.archive"
    archive.write_bytes(packed[: len(packed) // 2])
    assert "no sound archive" in refusal(download.unpack, archive, "in", tmp_path / "in")
    assert left(tmp_path) == []


def test_an_archive_without_the_member_is_refused(tmp_path):
    archive = tmp_path / "x.archive"
    archive.write_bytes(zipped(("other", b"")))
    assert "no member in" in refusal(download.unpack, archive, "in", tmp_path / "in")


def test_an_unpacking_that_was_killed_is_done_again_without_the_network(server, tmp_path):
    (tmp_path / "out.archive").write_bytes(zipped(("in/a", b"a")))
    (tmp_path / "out.unpacking/taken").mkdir(parents=True)
    (tmp_path / "out.unpacking/taken/half").write_bytes(b"")
    download.fetch(tmp_path / "out", [f"{server.url}/ok/x"], SHA256, take="in")
    assert left(tmp_path) == ["out"] and left(tmp_path / "out") == ["a"]
    assert server.seen == []
