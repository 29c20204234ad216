"""The shell scripts other than pipeline.sh, on a copy of the code."""

import contextlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from PIL import Image

from common import images

ROOT = Path(__file__).resolve().parents[2]
# Requests to all addresses except 127.0.0.1 fail as without a network.
OFFLINE = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}


def call(checkout, script, path="/usr/bin:/bin", **variables):
    """Runs a script with this interpreter first in PATH and without datasets."""
    environment = {"HOME": os.environ.get("HOME", "/"), "VIRTUAL_ENV": "active", **variables}
    environment |= {"PATH": f"{checkout.path / 'bin'}:{path}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [checkout.paper / script],
        cwd=checkout.path.parent,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module", autouse=True)
def interpreter(checkout):
    (checkout.path / "bin").mkdir()
    python = checkout.path / "bin" / "python3"  # a symlink would lose this interpreter's packages
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)


@pytest.fixture
def sources(checkout):
    """A copy of data/sources.yml to change, removed after the test."""
    path = checkout.path / "data" / "sources.yml"
    path.parent.mkdir()
    shutil.copy(ROOT / "data" / "sources.yml", path)
    yield path
    shutil.rmtree(path.parent)


@contextlib.contextmanager
def serving(folder):
    """Serves a folder over HTTP; yields its URL."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_download_data_continues_after_a_failure_and_names_it(checkout, sources, tmp_path):
    (tmp_path / "faces.h5").write_bytes(b"faces")
    changed = yaml.safe_load(sources.read_text())
    with serving(tmp_path) as url:
        changed["frgc"]["files"][0]["urls"] = [f"{url}/faces.h5"]
        sources.write_text(yaml.safe_dump(changed))
        variables = OFFLINE | {"no_proxy": "127.0.0.1", "DATA_ROOT": str(tmp_path / "my data")}
        done = call(checkout, "download_data.sh", **variables)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert (tmp_path / "my data/FRGC/data4torch.h5").read_bytes() == b"faces"
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: not downloaded: affnist_test instagram; ")
    assert "Traceback" not in done.stderr
    files = [path.name for path in (tmp_path / "my data").rglob("*") if path.is_file()]
    assert sorted(files) == ["data4torch.h5", "data4torch.h5.sha256"]


def test_collection_without_instaloader_uses_existing_posts(checkout, tmp_path):
    posts = tmp_path / "instagram/xmas/posts"
    posts.mkdir(parents=True)
    Image.new("RGB", (400, 300)).save(posts / "mine.png")
    variables = {"DATA_ROOT": str(tmp_path), "hashtag": "xmas"}
    done = call(checkout, "process_insta_santa.sh", **variables)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith("instaloader is not installed")
    assert images.load(tmp_path / "instagram/xmas/train/00000.jpg").shape == (128, 171, 3)

    done = call(checkout, "process_insta_santa.sh", **variables)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "already exists" in done.stderr


def test_collection_after_a_failed_download_uses_partial_posts(checkout, tmp_path):
    Image.new("RGB", (128, 128)).save(tmp_path / "old.png")
    tool = tmp_path / "bin" / "instaloader"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@"\ncp "{tmp_path}/old.png" "$2/1.png"\nexit 3\n')
    tool.chmod(0o755)
    path = f"{tool.parent}:/usr/bin:/bin"
    done = call(checkout, "process_insta_santa.sh", path, DATA_ROOT=str(tmp_path), login="me")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "--count 10000 --login me" in done.stderr and "#santaphoto\n" in done.stderr
    assert "did not download all posts" in done.stderr
    names = [path.name for path in (tmp_path / "instagram/santaphoto/train").iterdir()]
    assert names == ["00000.jpg"]


def test_collection_without_images_is_an_error(checkout, tmp_path):
    root = os.path.relpath(tmp_path, checkout.path.parent)
    done = call(checkout, "process_insta_santa.sh", DATA_ROOT=root)
    assert (done.returncode, done.stdout) == (2, "")
    assert "contains no readable images" in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "instagram/santaphoto").iterdir()] == ["posts"]


def test_multi_pipeline_trains_every_seed_and_keeps_the_config(checkout):
    before = (checkout.paper / "configs/tiny.yml").read_bytes()
    done = call(checkout, "multi_pipeline.sh", config="tiny.yml", tag="many", n_runs="2")
    assert done.returncode == 0, done.stderr
    assert (checkout.paper / "configs/tiny.yml").read_bytes() == before
    runs = [path for path in checkout.runs() if "_many_seed" in path.name]
    seeds = [yaml.safe_load((run / "config.yml").read_text())["training"]["seed"] for run in runs]
    assert seeds == [0, 1]
    assert all((run / "report.html").exists() for run in runs)
    header, *rows = done.stdout.splitlines()
    assert header.split()[:2] == ["acc", "nmi"]
    assert [row.split()[0] for row in rows] == [
        *(r.name for r in runs),
        "mean",
        "standard",
        "lowest",
    ]
