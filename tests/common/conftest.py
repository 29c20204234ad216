"""Where the tests of data sets find their files, and the server that they download from."""

import http.server
import os
import threading

import pytest
import yaml

from common import datasets
from common.datasets import download, loading
from tests.common.file_server import Handler


@pytest.fixture
def no_sources(tmp_path, monkeypatch):
    """Nothing on the system, nothing to download: what a test wants it makes."""
    listed = tmp_path / "sources.yml"
    manual = {name: {"manual": "no network in tests"} for name in datasets.NAMES}
    listed.write_text(
        yaml.safe_dump(manual | {"bsds500": manual["mnist"], "camvid": {"files": []}})
    )
    monkeypatch.setattr(download, "SOURCES", listed)
    monkeypatch.setattr(loading, "SYSTEM_COPIES", {})


@pytest.fixture
def root(no_sources, tmp_path):
    return tmp_path / "data"


@pytest.fixture
def real(no_sources):
    """A path below DATA_ROOT; skips the test where there is none."""

    def find(*parts):
        path = download.data_root().joinpath(*parts)
        if "DATA_ROOT" not in os.environ or not path.exists():
            pytest.skip(f"DATA_ROOT has no {'/'.join(parts)}")
        return path

    return find


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
