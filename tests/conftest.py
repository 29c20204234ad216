"""Fixtures shared by the papers' suites, based on the fixture `checkout` of each suite."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.entry_scripts", "tests.every_paper")

from tests.entry_scripts import Result, one_line  # noqa: E402
from tests.image_files import write, write_all_kinds, write_bad  # noqa: E402


def pytest_collection_modifyitems(items):
    """Marks tests that run entry scripts or train models as slow: `make test-fast` skips them."""
    for item in items:
        trains = item.path.stem in ("test_estimator", "test_train", "test_ablation")
        if trains or {"checkout", "cold"} & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def finished_run(checkout):
    """The completed pipeline.sh on the tiny config, and its run folder."""
    environment = {"config": "tiny.yml", "tag": "whole", "OMP_NUM_THREADS": "1"}
    binaries = Path(sys.executable).parent
    environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "VIRTUAL_ENV": str(binaries.parent)}
    completed = subprocess.run(
        [checkout.paper / "pipeline.sh"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    return completed, Result(0, "", completed.stderr).run


@pytest.fixture(scope="session")
def stopped_run(checkout):
    """A run that was stopped after its third step."""
    return checkout.train(kill_at="3:SIGTERM").run


@pytest.fixture(scope="session")
def without_gpu_or_visdom(checkout):
    """The result of a training for which neither the given GPU nor the visdom server exists."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        port = free.getsockname()[1]
        return checkout.train("--training.visdom_port", port, CUDA_VISIBLE_DEVICES="0")


@pytest.fixture
def refused(checkout):
    """Trains, expects a one-line error and no new run folder, and returns the error."""

    def call(*argv):
        before = checkout.runs()
        error = one_line(checkout.train(*argv))
        assert checkout.runs() == before
        return error

    return call


@pytest.fixture
def folder(tmp_path):
    """Six images."""
    for i in range(6):
        write(tmp_path / f"my photos/{i}.png", seed=i)
    return tmp_path / "my photos"


@pytest.fixture
def damaged(folder):
    """Six images and three files that cannot be read."""
    return write_bad(folder)


@pytest.fixture
def all_kinds(tmp_path):
    return write_all_kinds(tmp_path / "all kinds")
