"""Runs entry scripts in a copy of the code, each as its own process, and damages their output.

The conftest.py of each suite turns a `Checkout` into the fixture `checkout`.
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

# Forks a child for each script. The prelude of a suite is put before it: it imports once what takes
# seconds, and defines kill_at(place, signal name).
SERVER = """
import gc, json, os, runpy, signal, sys

gc.freeze()  # otherwise each child spends seconds tearing down the modules

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
    if job["close_stdout"]:
        reader, pipe = os.pipe()
        os.close(reader)
        os.dup2(pipe, 1)
    sys.path.insert(0, job["root"])  # for `kill_at`; replaced below
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
class Result:
    code: int
    out: str
    err: str

    @property
    def run(self):
        """The run folder that the script created or opened."""
        return Path(re.search(r"run folder (.*)", self.err)[1])


class Checkout:
    """A copy of the code, in a folder with a space in its name, and the server that runs it.

    paper: name of the folder; config: text of its configs/tiny.yml; prelude: see SERVER.
    """

    def __init__(self, path, paper, config, prelude):
        self.path, self.paper = path / "a checkout", path / "a checkout" / paper
        ignored = shutil.ignore_patterns("runs", "__pycache__")
        for name in ("common", paper):
            shutil.copytree(ROOT / name, self.path / name, ignore=ignored)
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

    def __call__(self, *argv, cwd=".", kill_at="", close_stdout=False, **environment):
        """Runs a script or module; kill_at: "STEP:SIGNAL" or "save:SIGNAL", sent to it there."""
        out, err = (str(self.path.parent / name) for name in ("out", "err"))
        cwd = str((self.path / cwd).resolve())
        job = {"argv": [str(word) for word in argv], "cwd": cwd, "out": out, "err": err}
        job |= {"environment": environment, "kill_at": kill_at, "close_stdout": close_stdout}
        job["root"] = str(self.path)
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return Result(code, Path(out).read_text(), Path(err).read_text())

    def train(self, *argv, **options):
        return self(f"{self.paper.name}/train.py", "--config", "tiny.yml", *argv, **options)

    def resume(self, run, **options):
        return self(f"{self.paper.name}/train.py", "--resume", run, **options)

    def pred(self, run, *argv, **options):
        return self(f"{self.paper.name}/pred.py", run, *argv, **options)

    def evaluate(self, run, **options):
        return self(f"{self.paper.name}/evaluate.py", run, **options)

    def score(self, run):
        """Predicts, evaluates and returns scores.json."""
        for result in (self.pred(run), self.evaluate(run)):
            assert result.code == 0, result.err
        return json.loads((run / "scores.json").read_text())

    def runs(self):
        return sorted(self.paper.glob("runs/*/*"))

    def close(self):
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()


def one_line(result):
    """The error message of a script that ended with one line and exit code 2."""
    errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert (result.code, result.out, len(errors)) == (2, "", 1), result.err
    assert result.err.endswith(f"{errors[0]}\n") and "Traceback" not in result.err
    return errors[0]


def is_command(code):
    """Whether a module can be run with `python -m`."""
    return '__name__ == "__main__"' in code


def undocumented(page):
    """Options of a --help page that lack a help text or, if they take a value, its default.

    The page has to be wide (COLUMNS=1000), so that each help text is one line.
    """
    missing = []
    for entry in re.findall(r"^  (\S.*(?:\n {10,}\S.*)?)", page, re.M):
        option, _, text = re.sub(r"\s*\n\s+", "  ", entry).partition("  ")
        has_value = re.search(r"--[\w.-]+ \S", option)
        states_default = re.search("default|required", text)
        if not re.search(r"\w", text.partition("default")[0]) or (has_value and not states_default):
            missing.append(option)
    return missing


def weights(run):
    """Content of the files of the last checkpoint, except its manifest, by name."""
    files = max(run.glob("checkpoints/0*")).iterdir()
    return {path.name: path.read_bytes() for path in files if path.suffix != ".json"}


def lines(run):
    """The lines of metrics.jsonl without timings."""
    values = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.endswith("_per_second")} for line in values]


def assert_the_same(run, expected):
    """Weights, training state and metrics are equal bit for bit."""
    files, expected_files = weights(run), weights(expected)
    assert files.keys() == expected_files.keys()
    assert [name for name in files if files[name] != expected_files[name]] == []
    assert lines(run) == lines(expected)


def copy_of(run, tmp_path):
    """A run folder to damage."""
    return shutil.copytree(run, tmp_path / "a run")


def replace(run, name, content):
    """Overwrites a file of the last checkpoint and empties its manifest of checksums."""
    folder = max(run.glob("checkpoints/0*"))
    (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text("{}")


def change_config(run, old, new):
    config = run / "config.yml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


class PickleBomb:
    """Creates a folder when it is unpickled; tests check that nothing ever unpickles it."""

    def __init__(self, path):
        self.path = path
        function, arguments = self.__reduce__()  # what unpickling would call
        function(*arguments)
        path.rmdir()  # it exists, so the bomb works

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
