"""Entry scripts as processes of their own, on a copy of the code: the checkout stays clean."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what is bit for bit the same is so on the CPU
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).resolve().parents[2]

# Twelve iterations in six chunks.
TINY = """
dataset: {name: coffee, max_side: 60}
model: {width: 12, n_clusters: 12}
training: {n_iterations: 12, max_side: 30, check_interval: 2, min_labels: 1}
"""

# Has loaded once what takes seconds, and becomes each script by a fork. STRIKE=3:SIGTERM sends
# that signal to the script after its third look at the losses, save:SIGKILL when it first writes
# weights.
SERVER = """
import gc, json, os, runpy, signal, sys
import h5py, jsonargparse, matplotlib, PIL.Image, scipy.sparse.csgraph, skimage.segmentation
import sklearn.base, tensorboardX, tensorflow, tifffile, tqdm.contrib.logging, yaml

gc.freeze()  # else each script takes them apart when it ends: seconds

def strike(place, name):
    def wrap(function, is_hit):
        def hit(*args, **keywords):
            value = function(*args, **keywords)
            hit.n += 1
            if is_hit(args, hit.n):
                os.kill(os.getpid(), getattr(signal, name))
            return value
        hit.n = 0
        return hit
    if place == "save":
        h5py.File.__init__ = wrap(h5py.File.__init__, lambda args, n: "w" in args[2:])
    else:
        import common.run
        common.run.Run.log = wrap(common.run.Run.log, lambda args, n: n == int(place))

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
    sys.path.insert(0, job["root"])
    if job["strike"]:
        strike(*job["strike"].split(":"))
    sys.argv = job["argv"]
    if sys.argv[0].endswith(".py"):
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
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
    """A copy of the code, in a folder with a space, and the server that runs it."""

    def __init__(self, path):
        self.path, self.paper = path / "a checkout", path / "a checkout" / "dfc_tf"
        left_out = shutil.ignore_patterns("runs", "__pycache__")
        for name in ("common", "dfc_tf"):
            shutil.copytree(ROOT / name, self.path / name, ignore=left_out)
        (self.paper / "configs/tiny.yml").write_text(TINY)
        server = path / "server.py"
        server.write_text(SERVER)
        self.server = subprocess.Popen(
            [sys.executable, server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def __call__(self, *argv, cwd=".", strike="", is_read=True, **environment):
        out, err = (str(self.path.parent / name) for name in ("out", "err"))
        cwd = str((self.path / cwd).resolve())
        job = {"argv": [str(word) for word in argv], "cwd": cwd, "out": out, "err": err}
        job |= {"environment": environment, "strike": strike, "is_read": is_read}
        job["root"] = str(self.path)
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return Answer(code, Path(out).read_text(), Path(err).read_text())

    def train(self, *argv, **options):
        return self("dfc_tf/train.py", "--config", "tiny.yml", *argv, **options)

    def resume(self, run, **options):
        return self("dfc_tf/train.py", "--resume", run, **options)

    def pred(self, run, *argv, **options):
        return self("dfc_tf/pred.py", run, *argv, **options)

    def evaluate(self, run, **options):
        return self("dfc_tf/evaluate.py", run, **options)

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


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("dfc"))
    yield checkout
    checkout.close()


@pytest.fixture(scope="session")
def whole(checkout):
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
