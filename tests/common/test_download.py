"""One file: checked, resumed, refused."""

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
from tests.common.file_server import CONTENT, MD5, SHA256, left, refusal, tar


@pytest.mark.parametrize("checksum", [SHA256, MD5])
def test_a_file_arrives_checked_and_nothing_else_is_left(server, tmp_path, checksum):
    download.fetch(tmp_path / "sub/x.bin", [f"{server.url}/ok/x"], checksum, len(CONTENT))
    assert (tmp_path / "sub/x.bin").read_bytes() == CONTENT
    assert left(tmp_path / "sub") == ["x.bin"]


def test_a_gz_file_is_not_unpacked_on_the_way(server, tmp_path):
    packed = server.files["/ok/x.gz"] = gzip.compress(CONTENT, mtime=0)
    download.fetch(tmp_path / "x.gz", [f"{server.url}/ok/x.gz"], size=len(packed))
    assert (tmp_path / "x.gz").read_bytes() == packed


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server, tmp_path):
    wrong = "sha256:" + "0" * 64
    line = refusal(download.fetch, tmp_path / "x", [f"{server.url}/ok/x"], wrong)
    assert SHA256[7:] in line and "expected 000" in line
    assert left(tmp_path) == []


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_an_http_error_is_refused_and_leaves_nothing(server, tmp_path, status):
    line = refusal(download.fetch, tmp_path / "x", [f"{server.url}/status/{status}"], SHA256)
    assert f"HTTP {status}" in line and server.url in line
    assert left(tmp_path) == []


def test_a_web_page_instead_of_the_file_is_refused(server, tmp_path):
    line = refusal(download.fetch, tmp_path / "x", [f"{server.url}/page"])
    assert "a web page came instead of the file" in line
    assert left(tmp_path) == []


def test_mirrors_are_tried_in_order(server, tmp_path):
    urls = [f"{server.url}/{kind}" for kind in ("status/404", "page", "ok/x", "ok/never")]
    download.fetch(tmp_path / "x", urls, SHA256)
    assert [path for path, _ in server.seen] == ["/status/404", "/page", "/ok/x"]


def test_all_failures_are_named_when_no_mirror_works(server, tmp_path):
    urls = [f"{server.url}/status/404", f"{server.url}/page"]
    line = refusal(download.fetch, tmp_path / "x", urls, SHA256)
    assert "HTTP 404" in line and "web page" in line


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_cut_file_is_resumed_where_it_stopped(server, tmp_path, size):
    line = refusal(download.fetch, tmp_path / "x", [f"{server.url}/cut/x"], SHA256, size)
    assert "connection cut" in line
    assert left(tmp_path) == ["x.part"]
    have = (tmp_path / "x.part").stat().st_size
    assert 400_000 < have <= len(CONTENT) // 2  # all but the piece that was cut
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"], SHA256, size)
    assert server.seen[-1] == ("/ok/x", f"bytes={have}-")
    assert (tmp_path / "x").read_bytes() == CONTENT and left(tmp_path) == ["x"]


def test_a_cut_that_no_length_shows_is_seen_by_the_size(server, tmp_path):
    server.files["/nolength/x"] = CONTENT[:-10]
    url = f"{server.url}/nolength/x"
    line = refusal(download.fetch, tmp_path / "x", [url], None, len(CONTENT))
    assert f"cut at {len(CONTENT) - 10} of {len(CONTENT)} bytes" in line
    assert not (tmp_path / "x").exists()


def test_an_empty_answer_is_no_file(server, tmp_path):
    server.files["/ok/x"] = b""
    assert "cut at 0" in refusal(download.fetch, tmp_path / "x", [f"{server.url}/ok/x"])


def test_a_server_without_ranges_starts_again(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT[:1000])
    download.fetch(tmp_path / "x", [f"{server.url}/norange/x"], SHA256)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_damaged_partial_file_costs_one_more_try(server, tmp_path):
    (tmp_path / "x.part").write_bytes(b"?" * 1000)
    assert "expected" in refusal(download.fetch, tmp_path / "x", [f"{server.url}/ok/x"], SHA256)
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"], SHA256)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_starts_again(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT + b"more")
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"], SHA256)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_complete_partial_file_is_only_checked(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT)
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"], SHA256, len(CONTENT))
    assert server.seen == [] and left(tmp_path) == ["x"]


def test_without_a_checksum_a_partial_file_is_not_trusted(server, tmp_path):
    (tmp_path / "x.part").write_bytes(b"?" * 1000)
    download.fetch(tmp_path / "x", [f"{server.url}/ok/x"])
    assert server.seen == [("/ok/x", None)] and (tmp_path / "x").read_bytes() == CONTENT


def test_the_first_download_without_a_checksum_sets_it_and_says_so(server, tmp_path, caplog):
    url = [f"{server.url}/ok/x"]
    download.fetch(tmp_path / "x", url)
    assert (tmp_path / "x.sha256").read_text().strip() == SHA256[7:]
    assert "no checksum is published for x" in caplog.text
    (tmp_path / "x").unlink()
    server.files["/ok/x"] = b"another file"
    assert SHA256[7:] in refusal(download.fetch, tmp_path / "x", url)
    assert left(tmp_path) == ["x.sha256"]


def test_no_network_is_one_line(tmp_path):
    url = "http://127.0.0.1:9/x"  # the discard port: nobody listens
    assert "no connection" in refusal(download.fetch, tmp_path / "x", [url])
    assert left(tmp_path) == []


def test_google_drive_without_network_is_one_line(tmp_path, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing leaves this machine
    line = refusal(download.fetch, tmp_path / "x", ["gdrive:1tv5-_Iz-LD6-FqFxF67py9ot97BOZbUc"])
    assert "Google Drive: " in line
    assert left(tmp_path) == []


def limited(url, folder, checksum, take):
    """Writes at most 100 kB to a file: what a full disk looks like to one process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        download.fetch(Path(folder) / "x", [url], checksum, take=take)
    except UserError as error:
        os._exit(7 if "File too large" in str(error) else 8)
    os._exit(9)


@pytest.mark.parametrize("take, remains", [(None, []), ("in", ["x.archive"])])
def test_a_full_disk_is_refused_and_freed_again(server, tmp_path, take, remains):
    content = server.files["/ok/x"] = tar(("in/a", CONTENT)) if take else CONTENT
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    process = multiprocessing.get_context("spawn").Process(
        target=limited, args=(f"{server.url}/ok/x", str(tmp_path), checksum, take)
    )
    process.start()
    process.join()
    assert process.exitcode == 7
    assert left(tmp_path) == remains


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(server, tmp_path):
    size = 10**18
    server.files["/nolength/x"] = CONTENT
    line = refusal(download.fetch, tmp_path / "x", [f"{server.url}/nolength/x"], SHA256, size)
    assert "No space left" in line
    assert left(tmp_path) == []
