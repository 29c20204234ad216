"""download.fetch of single files."""

import gzip
import hashlib
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from common import UserError
from common.datasets import download
from tests.common.datasets.file_server import CONTENT, MD5, SHA256, names_in, tar
from tests.common.datasets.files import error_of


@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_fetch_verifies_and_leaves_only_the_file(server, tmp_path, checksum):
    download.fetch(tmp_path / "sub/x.bin", [f"{server.url}/ok/x"], checksum, len(CONTENT))
    assert (tmp_path / "sub/x.bin").read_bytes() == CONTENT
    assert names_in(tmp_path / "sub") == ["x.bin"]


def test_gz_file_is_not_decompressed_in_transit(server, tmp_path):
    packed = server.files["/ok/x.gz"] = gzip.compress(CONTENT, mtime=0)
    download.fetch(tmp_path / "x.gz", [f"{server.url}/ok/x.gz"], size=len(packed))
    assert (tmp_path / "x.gz").read_bytes() == packed


def test_wrong_checksum_is_refused(server, tmp_path):
    wrong = "sha256:" + "0" * 64
    line = error_of(download.fetch, tmp_path / "x", [f"{server.url}/ok/x"], wrong)
    assert SHA256[7:] in line and "expected 000" in line
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_http_error_is_refused(server, tmp_path, status):
    line = error_of(download.fetch, tmp_path / "x", [f"{server.url}/status/{status}"], SHA256)
    assert f"HTTP {status}" in line and server.url in line
    assert names_in(tmp_path) == []


def test_web_page_instead_of_the_file_is_refused(server, tmp_path):
    line = error_of(download.fetch, tmp_path / "x", [f"{server.url}/page"])
    assert "got a web page instead of the file" in line
    assert names_in(tmp_path) == []


def test_mirrors_are_tried_in_order(server, tmp_path):
    urls = [f"{server.url}/{kind}" for kind in ("status/404", "page", "ok/x", "ok/never")]
    download.fetch(tmp_path / "x", urls, SHA256)
    assert [path for path, _ in server.requests] == ["/status/404", "/page", "/ok/x"]


def test_failures_of_all_mirrors_are_named(server, tmp_path):
    urls = [f"{server.url}/status/404", f"{server.url}/page"]
    line = error_of(download.fetch, tmp_path / "x", urls, SHA256)
    assert "HTTP 404" in line and "web page" in line


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_cut_download_is_resumed(server, tmp_path, size):
    line = error_of(download.fetch, tmp_path / "x", [f"{server.url}/cut/x"], SHA256, size)
    assert "connection lost" in line
    assert names_in(tmp_path) == ["x.part"]
    n_bytes = (tmp_path / "x.part").stat().st_size
    assert 400_000 < n_bytes <= len(CONTENT) // 2  # without the chunk that was cut
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"], SHA256, size)
    assert server.requests[-1] == ("/ok/x", f"bytes={n_bytes}-")
    assert (tmp_path / "x").read_bytes() == CONTENT and names_in(tmp_path) == ["x"]


def test_cut_download_without_length_is_refused_by_size(server, tmp_path):
    server.files["/nolength/x"] = CONTENT[:-10]
    url = f"{server.url}/nolength/x"
    line = error_of(download.fetch, tmp_path / "x", [url], None, len(CONTENT))
    assert f"lost at {len(CONTENT) - 10} of {len(CONTENT)} bytes" in line
    assert not (tmp_path / "x").exists()


def test_empty_response_is_refused(server, tmp_path):
    server.files["/ok/x"] = b""
    assert "lost at 0" in error_of(download.fetch, tmp_path / "x", [f"{server.url}/ok/x"])


def test_server_without_ranges_starts_over(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT[:1000])
    download.fetch(tmp_path / "x", [f"{server.url}/norange/x"], SHA256)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_damaged_part_is_deleted_and_downloaded_again(server, tmp_path):
    (tmp_path / "x.part").write_bytes(b"?" * 1000)
    assert "expected" in error_of(download.fetch, tmp_path / "x", [f"{server.url}/ok/x"], SHA256)
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"], SHA256)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_part_longer_than_the_file_starts_over(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT + b"more")
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"], SHA256)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_complete_part_is_only_verified(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT)
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"], SHA256, len(CONTENT))
    assert server.requests == [] and names_in(tmp_path) == ["x"]


def test_part_without_checksum_is_not_resumed(server, tmp_path):
    (tmp_path / "x.part").write_bytes(b"?" * 1000)
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"])
    assert server.requests == [("/ok/x", None)] and (tmp_path / "x").read_bytes() == CONTENT


def test_first_download_without_checksum_saves_it(server, tmp_path, caplog):
    url = [f"{server.url}/ok/x"]
    download.fetch(tmp_path / "x", url)
    assert (tmp_path / "x.sha256").read_text().strip() == SHA256[7:]
    assert "no checksum is published for x" in caplog.text
    (tmp_path / "x").unlink()
    server.files["/ok/x"] = b"another file"
    assert SHA256[7:] in error_of(download.fetch, tmp_path / "x", url)
    assert names_in(tmp_path) == ["x.sha256"]


def test_no_network_is_refused(tmp_path):
    url = "http://127.0.0.1:9/x"  # the discard port, on which nothing listens
    assert "no connection" in error_of(download.fetch, tmp_path / "x", [url])
    assert names_in(tmp_path) == []


def test_google_drive_without_network_is_refused(tmp_path, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing leaves the machine
    line = error_of(download.fetch, tmp_path / "x", ["gdrive:1tv5-_Iz-LD6-FqFxF67py9ot97BOZbUc"])
    assert "Google Drive: " in line
    assert names_in(tmp_path) == []


def limited(url, folder, checksum, take):
    """Downloads with a limit of 100 kB per file, which acts like a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        download.fetch(Path(folder) / "x", [url], checksum, take=take)
    except UserError as error:
        os._exit(7 if "File too large" in str(error) else 8)
    os._exit(9)


@pytest.mark.parametrize("take, remains", [(None, []), ("in", ["x.archive"])])
def test_full_disk_is_refused_and_freed(server, tmp_path, take, remains):
    content = server.files["/ok/x"] = tar(("in/a", CONTENT)) if take else CONTENT
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    process = multiprocessing.get_context("spawn").Process(
        target=limited, args=(f"{server.url}/ok/x", str(tmp_path), checksum, take)
    )
    process.start()
    process.join()
    assert process.exitcode == 7
    assert names_in(tmp_path) == remains


def test_file_larger_than_the_disk_is_refused_before_writing(server, tmp_path):
    size = 10**18
    server.files["/nolength/x"] = CONTENT
    line = error_of(download.fetch, tmp_path / "x", [f"{server.url}/nolength/x"], SHA256, size)
    assert "No space left" in line
    assert names_in(tmp_path) == []
