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

ROOT = Path(__file__).resolve().parents[2]

# Twelve steps: three epochs of four batches, each with one more transformation.
TINY = """
dataset: {name: digits, n_images: 120, margin: 1}
model:
  n_prototypes: 4
  encoder: strided
  transformations: [identity, affine, tps]
  curriculum: [1, 2]
  redundancy: 0.5
training:
  {n_epochs: 3, batch_size: 32, lr: 0.01, milestones: [2], cosine_from: 1, check_interval: 3}
"""

# Has loaded once what takes seconds, and becomes each script by a fork. STRIKE=6:SIGTERM sends
# that signal to the script after its sixth step, save:SIGKILL when it first writes weights.
SERVER = """
import gc, json, os, runpy, signal, sys
import jsonargparse, matplotlib, PIL.Image, safetensors.torch, scipy.optimize, sklearn.cluster
import sklearn.datasets, sklearn.metrics, tensorboardX, torch, tqdm.contrib.logging, yaml
from torch.optim.optimizer import register_optimizer_step_post_hook

torch.optim.Adam([torch.zeros(1)])  # loads hundreds of modules
gc.freeze()  # else each script takes them apart when it ends: two seconds

def strike(place, name):
    def hit(*_):
        hit.n += 1
        if place in ("save", str(hit.n)):
            os.kill(os.getpid(), getattr(signal, name))
    hit.n = 0
    if place == "save":
        safetensors.torch.save_file = hit
    else:
        register_optimizer_step_post_hook(hit)

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
    if job["strike"]:
        strike(*job["strike"].split(":"))
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
    """A copy of the code, in a folder with a space, and the server that runs it."""

    def __init__(self, path):
        self.path, self.paper = path / "a checkout", path / "a checkout" / "dti_torch"
        left_out = shutil.ignore_patterns("runs", "__pycache__")
        for name in ("common", "dti_torch"):
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
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return Answer(code, Path(out).read_text(), Path(err).read_text())

    def train(self, *argv, **options):
        return self("dti_torch/train.py", "--config", "tiny.yml", *argv, **options)

    def resume(self, run, **options):
        return self("dti_torch/train.py", "--resume", run, **options)

    def pred(self, run, *argv, **options):
        return self("dti_torch/pred.py", run, *argv, **options)

    def evaluate(self, run, **options):
        return self("dti_torch/evaluate.py", run, **options)

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
    checkout = Checkout(tmp_path_factory.mktemp("dti"))
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
