"""DATA_ROOT and the file server of the tests."""

import http.server
import os
import threading

import pytest
import yaml

from common import datasets
from common.datasets import download, loading
from tests.common.datasets.file_server import Handler


@pytest.fixture
def no_sources(tmp_path, monkeypatch):
    """Hides system copies, and sources to download from."""
    sources = tmp_path / "sources.yml"
    manual = {name: {"manual": "no network in tests"} for name in datasets.NAMES}
    sources.write_text(
        yaml.safe_dump(manual | {"bsds500": manual["mnist"], "camvid": {"files": []}})
    )
    monkeypatch.setattr(download, "SOURCES", sources)
    monkeypatch.setattr(loading, "SYSTEM_COPIES", {})


@pytest.fixture
def root(no_sources, tmp_path):
    return tmp_path / "data"


@pytest.fixture
def real(no_sources):
    """A function that returns a path in the real DATA_ROOT, or skips the test without it."""

    def find(*parts):
        path = download.data_root().joinpath(*parts)
        if "DATA_ROOT" not in os.environ or not path.exists():
            pytest.skip(f"DATA_ROOT has no {'/'.join(parts)}")
        return path

    return find


@pytest.fixture(scope="module")
def running_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running_server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running_server.requests, running_server.files = [], {}
    running_server.requested, running_server.released = threading.Event(), threading.Event()
    running_server.url = f"http://127.0.0.1:{running_server.server_address[1]}"
    return running_server
