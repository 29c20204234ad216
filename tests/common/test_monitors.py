import json
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

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


@pytest.fixture
def file_server():
    """The port of a server that answers every POST with the same page."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def visdom_server(tmp_path):
    """The port of a visdom server; its script would first fetch the files of its page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = (
        "from visdom.server.run_server import start_server\n"
        f"start_server(port={port}, base_url='', env_path={str(tmp_path)!r}, bind_local=True, "
        "print_func=lambda port: print('up', flush=True))"
    )
    command = [sys.executable, "-c", serve]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            while "up" not in server.stdout.readline():
                assert server.poll() is None
            yield port
        finally:
            server.kill()


def test_visdom_shows_the_curves_of_a_run_and_of_its_resumption(run, visdom_server):
    run.config["training"]["visdom_port"] = visdom_server
    with run:
        for step in range(3):
            run.log("train", step, loss=2.0 * step, n=7)
    resumed = Run.open(run.path)
    resumed.config["training"]["visdom_port"] = visdom_server
    with resumed:
        resumed.log("train", 3, loss=1.5)
    assert "WARNING" not in (run.path / "train.log").read_text()

    def window(name):
        question = {"win": name, "eid": run.path.name}
        answer = requests.post(f"http://localhost:{visdom_server}/win_data", json=question)
        return json.loads(answer.text)

    loss, n = window("train/loss"), window("train/n")
    assert (loss["title"], len(loss["content"]["data"])) == ("train/loss", 1)
    curve = loss["content"]["data"][0]
    assert (curve["x"], curve["y"]) == ([0, 1, 2, 3], [0, 2, 4, 1.5])
    assert n["content"]["data"][0]["y"] == [7, 7, 7]


def test_server_of_something_else_is_one_warning(run, file_server):
    run.config["training"]["visdom_port"] = file_server
    with run:
        for step in range(3):
            run.log("train", step, loss=1.0)
    assert (run.path / "train.log").read_text().count("WARNING") == 1


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
