"""download.get of datasets by name, the shipped data/sources.yml, python -m common.download."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from common import datasets
from common.datasets import download, loading, segmentations
from tests.common.datasets.file_server import CONTENT, SHA256, names_in, tar
from tests.common.datasets.files import error_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def sources(tmp_path, monkeypatch):
    path = tmp_path / "sources.yml"
    monkeypatch.setattr(download, "SOURCES", path)
    return lambda **listed: path.write_text(yaml.safe_dump(listed))


def test_get_downloads_needed_and_missing_files(server, tmp_path, sources):
    files = [
        {"path": f"X/{name}", "urls": [f"{server.url}/ok/{name}"], "checksum": SHA256}
        for name in "abc"
    ]
    sources(x={"files": files})
    root = tmp_path / "root"
    download.get("x", root, ["X/b"])
    assert names_in(root / "X") == ["b"]
    download.get("x", root)
    assert [path for path, _ in server.requests] == ["/ok/b", "/ok/a", "/ok/c"]


def test_get_refuses_what_has_no_source(tmp_path, sources):
    sources(x={"files": []}, y={"manual": "ask nicely"})
    assert "expected one of x, y" in error_of(download.get, "z", tmp_path)
    assert "ask nicely" in error_of(download.get, "y", tmp_path)
    assert "no source of X/b" in error_of(download.get, "x", tmp_path, ["X/b"])


def test_load_downloads_missing_files(server, tmp_path, sources):
    raw = bytes([3]) + bytes(3072)
    server.files["/ok/x"] = tar(("cifar-10-batches-bin/test_batch.bin", raw))
    path = "cifar-10-batches-bin"
    sources(cifar10={"files": [{"path": path, "take": path, "urls": [f"{server.url}/ok/x"]}]})
    loaded = datasets.load("cifar10", "test", tmp_path / "root")
    assert loaded.labels.tolist() == [3] and len(server.requests) == 1
    datasets.load("cifar10", "test", tmp_path / "root")
    assert len(server.requests) == 1


def test_load_offline_names_three_remedies(tmp_path, sources):
    path = "affNIST_test.mat"
    sources(affnist_test={"files": [{"path": path, "urls": ["http://127.0.0.1:9/x"]}]})
    line = error_of(datasets.load, "affnist_test", root=tmp_path)
    assert "put the files there" in line and "make data DATASET=affnist_test" in line
    assert "set DATA_ROOT" in line and "no connection" in line


def test_parallel_downloads_fetch_a_file_once(server, tmp_path, sources, caplog):
    caplog.set_level(logging.INFO)
    second_waits = threading.Event()
    caplog.handler.addFilter(lambda record: second_waits.set() if "waiting" in record.msg else 1)
    url = f"{server.url}/held/x"
    sources(x={"files": [{"path": "x", "urls": [url], "checksum": SHA256}]})
    threads = [threading.Thread(target=download.get, args=("x", tmp_path)) for _ in range(2)]
    threads[0].start()
    assert server.requested.wait(30)
    threads[1].start()  # flock is per open file, so that two threads act like two processes
    assert second_waits.wait(30)
    server.released.set()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_bytes() == CONTENT and len(server.requests) == 1


HOLD = """
import sys, pathlib
from common.datasets import download
with download._lock(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_killed_process_leaves_no_lock(server, tmp_path, sources):
    sources(x={"files": [{"path": "x", "urls": [f"{server.url}/ok/x"], "checksum": SHA256}]})
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], **pipes) as holder:
        assert holder.stdout.readline() == b"locked\n"
        holder.kill()
        holder.wait()
    download.get("x", tmp_path)
    assert (tmp_path / "x").exists()


def test_unwritable_root_is_refused(tmp_path, sources):
    sources(x={"files": [{"path": "x", "urls": []}]})
    (tmp_path / "file").write_bytes(b"")
    assert "set DATA_ROOT" in error_of(download.get, "x", tmp_path / "file/root")


# ---- the shipped list and the command


def test_shipped_sources_are_complete():
    listed = download.sources()
    assert set(listed) >= set(datasets.NAMES) - {"digits", "folder"} | {
        "bsds500",
        "camvid",
        "ade20k",
    }
    for name, source in listed.items():
        assert {"about", "license"} < set(source), name
        assert ("manual" in source) != ("files" in source), name
        for file in source.get("files", []):
            assert {"path", "urls", "checksum", "size"} <= set(file), name
            assert "/blob/" not in str(file["urls"]), name
            if file["checksum"]:
                algorithm, digest = file["checksum"].split(":")
                assert len(digest) == {"md5": 32, "sha256": 64}[algorithm], name


def test_every_file_of_a_reader_has_a_source():
    files = {name: source.files for name, source in loading._ARRAYS.items()}
    files |= {name: source[0] for name, source in segmentations._DATASETS.items()}
    listed = download.sources()
    for name in files.keys() & {name for name in listed if "files" in listed[name]}:
        paths = [file["path"] for file in listed[name]["files"]]
        for needed in sum(files[name].values(), []):
            assert any(download._contains(path, needed) for path in paths), needed


def command(*args):
    line = [sys.executable, "-m", "common.download", *args]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


def test_command_lists_all_datasets():
    done = command()
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(download.sources())
    assert "CC BY-SA 3.0" in done.stdout and "12 MB" in done.stdout


def test_command_refuses_an_unknown_name_in_one_line(tmp_path):
    done = command("mnits", "--root", str(tmp_path))
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "mnits" in done.stderr
