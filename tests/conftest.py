"""Fixtures of all papers' suites, on the `checkout` that each of them has."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.entry_scripts", "tests.every_paper")

from tests.entry_scripts import Answer, one_line  # noqa: E402
from tests.image_files import write, write_all_kinds, write_bad  # noqa: E402


@pytest.fixture(scope="session")
def finished_run(checkout):
    """What pipeline.sh answers, and the finished run of the tiny config."""
    environment = {"config": "tiny.yml", "tag": "whole", "OMP_NUM_THREADS": "1"}
    binaries = Path(sys.executable).parent
    environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "VIRTUAL_ENV": str(binaries.parent)}
    answer = subprocess.run(
        [checkout.paper / "pipeline.sh"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    return answer, Answer(0, "", answer.stderr).run


@pytest.fixture(scope="session")
def stopped(checkout):
    """A run that was stopped after its third kill_at."""
    return checkout.train(kill_at="3:SIGTERM").run


@pytest.fixture(scope="session")
def without_gpu_or_visdom(checkout):
    """The answer of a training that finds neither the GPU nor the monitor that it is given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        port = free.getsockname()[1]
        return checkout.train("--training.visdom_port", port, CUDA_VISIBLE_DEVICES="0")


@pytest.fixture
def refused(checkout):
    """Trains, expects one line, and that no run folder is left behind."""

    def call(*argv):
        before = checkout.runs()
        reason = one_line(checkout.train(*argv))
        assert checkout.runs() == before
        return reason

    return call


@pytest.fixture
def folder(tmp_path):
    """Six pictures."""
    for i in range(6):
        write(tmp_path / f"my photos/{i}.png", seed=i)
    return tmp_path / "my photos"


@pytest.fixture
def damaged(folder):
    """The same, and three that cannot be read."""
    return write_bad(folder)


@pytest.fixture
def all_kinds(tmp_path):
    return write_all_kinds(tmp_path / "all kinds")
