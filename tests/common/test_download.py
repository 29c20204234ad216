import gzip
import hashlib
import http.server
import io
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import yaml

from common import UserError, datasets, download, segmentations

REPOSITORY = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 4000  # 1 MB
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """The path says how the server behaves; server.seen keeps (path, Range) of every request."""

    def do_GET(self):
        self.server.seen.append((self.path, self.headers["Range"]))
        kind = self.path.split("/")[1]
        if kind == "status":
            return self.answer(b"gone", status=int(self.path.split("/")[2]))
        if kind == "page":
            return self.answer(b"\n<!DOCTYPE html><title>Quota exceeded</title>")
        if kind == "held":  # until the test says so
            self.server.asked.set()
            self.server.released.wait(30)
        content = self.server.files.get(self.path, CONTENT)
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        if kind == "norange":
            start = 0
        if start >= len(content) and start:
            return self.answer(b"", status=416)
        rest = content[start:]
        sent = rest[: len(rest) // 2] if kind == "cut" else rest
        self.answer(sent, 206 if start else 200, None if kind == "nolength" else len(rest))

    def answer(self, sent, status=200, length=-1):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", len(sent) if length < 0 else length)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def running():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running.seen, running.files = [], {}
    running.asked, running.released = threading.Event(), threading.Event()
    running.url = f"http://127.0.0.1:{running.server_address[1]}"
    return running


def refusal(function, *args, **options):
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- one file


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


# ---- archives


def tar(*members):
    """members are (name, content) or a TarInfo."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return packed.getvalue()


def zipped(*members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return packed.getvalue()


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


# ---- data sets


@pytest.fixture
def sources(tmp_path, monkeypatch):
    path = tmp_path / "sources.yml"
    monkeypatch.setattr(download, "SOURCES", path)
    return lambda **listed: path.write_text(yaml.safe_dump(listed))


def test_only_what_is_needed_and_absent_is_fetched(server, tmp_path, sources):
    files = [
        {"path": f"X/{name}", "urls": [f"{server.url}/ok/{name}"], "checksum": SHA256}
        for name in "abc"
    ]
    sources(x={"files": files})
    root = tmp_path / "root"
    download.get("x", root, ["X/b"])
    assert left(root / "X") == ["b"]
    download.get("x", root)
    assert [path for path, _ in server.seen] == ["/ok/b", "/ok/a", "/ok/c"]


def test_what_cannot_be_downloaded_says_why(tmp_path, sources):
    sources(x={"files": []}, y={"manual": "ask nicely"})
    assert "expected one of x, y" in refusal(download.get, "z", tmp_path)
    assert "ask nicely" in refusal(download.get, "y", tmp_path)
    assert "no source of X/b" in refusal(download.get, "x", tmp_path, ["X/b"])


def test_load_downloads_what_is_missing(server, tmp_path, sources):
    raw = bytes([3]) + bytes(3072)
    server.files["/ok/x"] = tar(("cifar-10-batches-bin/test_batch.bin", raw))
    path = "cifar-10-batches-bin"
    sources(cifar10={"files": [{"path": path, "take": path, "urls": [f"{server.url}/ok/x"]}]})
    loaded = datasets.load("cifar10", "test", tmp_path / "root")
    assert loaded.labels.tolist() == [3] and len(server.seen) == 1
    datasets.load("cifar10", "test", tmp_path / "root")
    assert len(server.seen) == 1


def test_load_offline_gives_the_three_ways_out(tmp_path, sources):
    path = "affNIST_test.mat"
    sources(affnist_test={"files": [{"path": path, "urls": ["http://127.0.0.1:9/x"]}]})
    line = refusal(datasets.load, "affnist_test", root=tmp_path)
    assert "put the files there" in line and "make data DATASET=affnist_test" in line
    assert "set DATA_ROOT" in line and "no connection" in line


def test_two_at_once_fetch_a_file_once(server, tmp_path, sources, caplog):
    caplog.set_level(logging.INFO)
    second_waits = threading.Event()
    caplog.handler.addFilter(lambda record: second_waits.set() if "waiting" in record.msg else 1)
    url = f"{server.url}/held/x"
    sources(x={"files": [{"path": "x", "urls": [url], "checksum": SHA256}]})
    threads = [threading.Thread(target=download.get, args=("x", tmp_path)) for _ in range(2)]
    threads[0].start()
    assert server.asked.wait(30)
    threads[1].start()  # flock counts by open file: two threads stand for two processes
    assert second_waits.wait(30)
    server.released.set()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() == CONTENT and len(server.seen) == 1


HOLD = """
import sys, pathlib
from common import download
with download._alone_in(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_dead_process_leaves_no_lock(server, tmp_path, sources):
    sources(x={"files": [{"path": "x", "urls": [f"{server.url}/ok/x"], "checksum": SHA256}]})
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": REPOSITORY}
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], **pipes) as holder:
        assert holder.stdout.readline() == b"locked\n"
        holder.kill()
        holder.wait()
    download.get("x", tmp_path)
    assert (tmp_path / "x").exists()


def test_a_root_that_cannot_be_made_is_refused(tmp_path, sources):
    sources(x={"files": [{"path": "x", "urls": []}]})
    (tmp_path / "file").write_bytes(b"")
    assert "set DATA_ROOT" in refusal(download.get, "x", tmp_path / "file/root")


# ---- the shipped list and the command


def test_every_source_is_complete():
    listed = download.sources()
    assert set(listed) >= set(datasets.NAMES) - {"digits", "folder"} | {
        "bsds500",
        "camvid",
        "ade20k",
    }
    for name, source in listed.items():
        assert {"about", "licence"} < set(source), name
        assert ("manual" in source) != ("files" in source), name
        for file in source.get("files", []):
            assert {"path", "urls", "checksum", "size"} <= set(file), name
            assert "/blob/" not in str(file["urls"]), name
            if file["checksum"]:
                algorithm, digest = file["checksum"].split(":")
                assert len(digest) == {"md5": 32, "sha256": 64}[algorithm], name


def test_every_file_that_a_reader_wants_has_a_source():
    files = {name: source.files for name, source in datasets._ARRAYS.items()}
    files |= {name: source[0] for name, source in segmentations._SETS.items()}
    listed = download.sources()
    for name in files.keys() & {name for name in listed if "files" in listed[name]}:
        paths = [file["path"] for file in listed[name]["files"]]
        for wanted in sum(files[name].values(), []):
            assert any(download._holds(path, wanted) for path in paths), wanted


def command(*args):
    line = [sys.executable, "-m", "common.download", *args]
    return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)


def test_the_command_without_a_name_lists_every_set():
    done = command()
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(download.sources())
    assert "CC BY-SA 3.0" in done.stdout and "12 MB" in done.stdout


def test_the_command_refuses_an_unknown_name_in_one_line(tmp_path):
    done = command("mnits", "--root", str(tmp_path))
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "mnits" in done.stderr
