import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common.run import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path, "digits", "t", {"training": {}})


def test_unresponsive_visdom_server_is_one_warning(run):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        run.config["training"]["visdom_port"] = silent.getsockname()[1]
        with run:
            for step in range(3):
                run.log("train", step, loss=1.0)
    assert (run.path / "train.log").read_text().count("WARNING") == 1


def test_visdom_shows_the_curve(run, tmp_path):
    pytest.importorskip("visdom", reason="the extra `visdom` is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = (
        "from visdom.server.run_server import start_server\n"
        f"start_server(port={port}, base_url='', env_path={str(tmp_path)!r}, bind_local=True, "
        "print_func=lambda port: print('up', flush=True))"
    )
    server = subprocess.Popen([sys.executable, "-c", serve], stdout=subprocess.PIPE, text=True)
    try:
        while "up" not in server.stdout.readline():
            assert server.poll() is None
        run.config["training"]["visdom_port"] = port
        with run:
            for step in range(3):
                run.log("train", step, loss=2.0 * step)
            (curve,) = json.loads(run._monitors.visdom.get_window_data("train/loss"))["content"][
                "data"
            ]
        assert (curve["x"], curve["y"]) == ([0, 1, 2], [0, 2, 4])
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_tensorboard_events_are_written_without_a_framework(tmp_path):
    code = (
        "import sys; from pathlib import Path; from common.run import Run\n"
        f"run = Run.create(Path({str(tmp_path)!r}), 'digits', 't', {{}})\n"
        "with run: run.log('train', 1, loss=0.5)\n"
        "assert not {'torch', 'tensorflow', 'keras'} & set(sys.modules), 'a framework was imported'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (events,) = tmp_path.glob("runs/digits/*/events.out.tfevents.*")
    assert b"train/loss" in events.read_bytes()
