"""Entry scripts as processes of their own, on a copy of the code: the checkout stays clean.

What the suites of all papers share: a `Checkout` to run scripts in, and how to damage what they
leave behind. A suite's conftest.py has the fixture `checkout`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Becomes each script by a fork. A suite's prelude, which stands before it, loads once what takes
# seconds and defines kill_at(place, signal's name).
SERVER = """
import gc, json, os, runpy, signal, sys

gc.freeze()  # else each script takes the modules apart when it ends: seconds

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(600)
    os.environ.update(job["environment"])
    os.chdir(job["cwd"])
    for number, path in ((1, job["out"]), (2, job["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if not job["is_read"]:
        nobody, pipe = os.pipe()
        os.close(nobody)
        os.dup2(pipe, 1)
    sys.path.insert(0, job["root"])  # for `kill_at`; the script's own takes its place
    if job["kill_at"]:
        kill_at(*job["kill_at"].split(":"))
    sys.argv = job["argv"]
    if sys.argv[0].endswith(".py"):
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.path[0] = job["cwd"]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    sys.exit()
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def run(self):
        """The run folder that was opened."""
        return Path(re.search(r"run folder (.*)", self.err)[1])


class Checkout:
    """A copy of the code, in a folder with a space, and the server that runs it.

    paper: the folder's name; config: the text of its configs/tiny.yml; prelude: see SERVER.
    """

    def __init__(self, path, paper, config, prelude):
        self.path, self.paper = path / "a checkout", path / "a checkout" / paper
        left_out = shutil.ignore_patterns("runs", "__pycache__")
        for name in ("common", paper):
            shutil.copytree(ROOT / name, self.path / name, ignore=left_out)
        (self.paper / "configs/tiny.yml").write_text(config)
        server = path / "server.py"
        server.write_text(prelude + SERVER)
        self.server = subprocess.Popen(
            [sys.executable, server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def __call__(self, *argv, cwd=".", kill_at="", is_read=True, **environment):
        out, err = (str(self.path.parent / name) for name in ("out", "err"))
        cwd = str((self.path / cwd).resolve())
        job = {"argv": [str(word) for word in argv], "cwd": cwd, "out": out, "err": err}
        job |= {"environment": environment, "kill_at": kill_at, "is_read": is_read}
        job["root"] = str(self.path)
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return Answer(code, Path(out).read_text(), Path(err).read_text())

    def train(self, *argv, **options):
        return self(f"{self.paper.name}/train.py", "--config", "tiny.yml", *argv, **options)

    def resume(self, run, **options):
        return self(f"{self.paper.name}/train.py", "--resume", run, **options)

    def pred(self, run, *argv, **options):
        return self(f"{self.paper.name}/pred.py", run, *argv, **options)

    def evaluate(self, run, **options):
        return self(f"{self.paper.name}/evaluate.py", run, **options)

    def score(self, run):
        """Predicts and evaluates -> scores.json"""
        for answer in (self.pred(run), self.evaluate(run)):
            assert answer.code == 0, answer.err
        return json.loads((run / "scores.json").read_text())

    def runs(self):
        return sorted(self.paper.glob("runs/*/*"))

    def close(self):
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()


def one_line(answer):
    """The reason that a refused script gave."""
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert (answer.code, answer.out, len(errors)) == (2, "", 1), answer.err
    assert answer.err.endswith(f"{errors[0]}\n") and "Traceback" not in answer.err
    return errors[0]


def weights(run):
    """The files of the last checkpoint, but for its manifest, by name."""
    files = max(run.glob("checkpoints/0*")).iterdir()
    return {path.name: path.read_bytes() for path in files if path.suffix != ".json"}


def lines(run):
    """metrics.jsonl without what differs from run to run."""
    values = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.endswith("_per_second")} for line in values]


def assert_the_same(run, expected):
    """To the last bit."""
    found, wanted = weights(run), weights(expected)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert lines(run) == lines(expected)


def copy_of(run, tmp_path):
    """A run folder to damage."""
    return shutil.copytree(run, tmp_path / "a run")


def replace(run, name, content):
    """Puts other content into the last checkpoint, with a manifest that does not mind."""
    folder = max(run.glob("checkpoints/0*"))
    (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text("{}")


def change_config(run, found, other):
    config = run / "config.yml"
    assert found in config.read_text()
    config.write_text(config.read_text().replace(found, other))


class PickleBomb:
    """Makes a folder when it is unpickled. The tests write it and never load it."""

    def __init__(self, path):
        self.path = path
        make, arguments = self.__reduce__()  # what whoever loads it would call
        make(*arguments)
        path.rmdir()  # so there was harm

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
