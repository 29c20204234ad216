"""Where the tests of data sets find their files."""

import os

import pytest
import yaml

from common import datasets, download


@pytest.fixture
def no_sources(tmp_path, monkeypatch):
    """Nothing on the system, nothing to download: what a test wants it makes."""
    listed = tmp_path / "sources.yml"
    manual = {name: {"manual": "no network in tests"} for name in datasets.NAMES}
    listed.write_text(
        yaml.safe_dump(manual | {"bsds500": manual["mnist"], "camvid": {"files": []}})
    )
    monkeypatch.setattr(download, "SOURCES", listed)
    monkeypatch.setattr(datasets, "SYSTEM_COPIES", {})


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
