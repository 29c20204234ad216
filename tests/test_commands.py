"""The Makefile and the pipeline scripts, on a toy paper in a folder with a space in its name."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / "dti_torch"  # the one with both scripts

TRAIN = """
import json, os, pathlib, signal, subprocess, sys
arguments = sys.argv[1:]
if "--stop" in arguments:  # is continued by SIGCONT, which is sent again until the script ends
    call = "while sleep 0.3; do kill -CONT %d 2>/dev/null || exit; done" % os.getpid()
    subprocess.Popen(["sh", "-c", call], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.kill(os.getpid(), signal.SIGSTOP)
if "--fail" in arguments:
    sys.exit(3)
if "--wait" in arguments:
    def stop(number, frame):
        os.write(2, b"got %d\\n" % number)
        sys.exit(128 + number)
    signal.signal(signal.SIGTERM, stop)
    os.write(2, b"waiting\\n")  # unbuffered, as the signal may arrive at once
    signal.pause()
here = pathlib.Path(__file__).resolve().parent
run = here / "runs" / "toy" / ("run%d" % len(list(here.glob("runs/toy/*"))))
run.mkdir(parents=True)
gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
(run / "config.yml").write_text("{}")
(run / "meta.json").write_text(json.dumps({"arguments": arguments, "gpu": gpu}))
print(run)
"""
STEP = """
import pathlib, sys
(pathlib.Path(sys.argv[1]) / (pathlib.Path(__file__).stem + ".txt")).touch()
print("not for stdout")
"""
EVALUATE = """
import json, pathlib, sys
run = pathlib.Path(sys.argv[1])
loss = int(run.name[-1])
(run / "scores.json").write_text(json.dumps({"acc": 0.5 + loss, "loss": loss}))
"""


@pytest.fixture
def toy(tmp_path):
    root = tmp_path / "a checkout"
    paper = root / "toy_torch"
    binaries = root / ".venv" / "bin"
    for folder in (paper, binaries):
        folder.mkdir(parents=True)
    (root / "common").symlink_to(ROOT / "common")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    for name in ("pipeline.sh", "multi_pipeline.sh"):
        shutil.copy(PAPER / name, paper)
    for name, text in (("train", TRAIN), ("pred", STEP), ("evaluate", EVALUATE)):
        (paper / f"{name}.py").write_text(text)
    for name in ("python", "python3"):  # a link would lose this interpreter's packages
        (binaries / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (binaries / name).chmod(0o755)
    (root / ".venv" / "installed-torch-cpu").touch()
    return paper


def minimal_environment(**variables):
    """Without an active virtual environment and without the variables of an outer make."""
    return {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ} | variables


def run(*command, cwd, **variables):
    return subprocess.run(
        command, cwd=cwd, env=minimal_environment(**variables), capture_output=True, text=True
    )


def meta(folder):
    return json.loads((folder / "meta.json").read_text())


def test_pipeline_prints_only_the_run_folder(toy):
    completed = run("./pipeline.sh", cwd=toy)
    folder = toy / "runs" / "toy" / "run0"
    assert (completed.stdout, completed.returncode) == (f"{folder}\n", 0), completed.stderr
    assert {"pred.txt", "scores.json", "report.html"} <= {path.name for path in folder.iterdir()}
    assert meta(folder) == {"arguments": [], "gpu": None}


def test_pipeline_passes_variables_and_arguments_to_train(toy):
    run("bash", toy / "pipeline.sh", "--x", "a b", cwd="/", cuda="1", config="c.yml", tag="t")
    assert meta(toy / "runs/toy/run0") == {
        "arguments": ["--config", "c.yml", "--tag", "t", "--x", "a b"],
        "gpu": "1",
    }


def test_pipeline_exits_with_the_code_of_the_failed_step(toy):
    completed = run("./pipeline.sh", "--fail", cwd=toy)
    assert (completed.stdout, completed.returncode) == ("", 3)
    (toy / "pred.py").write_text("raise SystemExit(2)")
    completed = run("./pipeline.sh", cwd=toy)
    assert (completed.stdout, completed.returncode) == ("", 2)
    assert not (toy / "runs/toy/run0/scores.json").exists()


@pytest.mark.parametrize("script", ["pipeline.sh", "multi_pipeline.sh"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_forwarded_once(toy, script, number):
    process = subprocess.Popen(
        [toy / script, "--wait"],
        env=minimal_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # in a terminal, Ctrl-C reaches the whole group
        # background jobs such as `make test &` ignore Ctrl-C, and so do their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr.readline() == "waiting\n"
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert err.count(f"got {int(signal.SIGTERM)}\n") == 1
    assert out == ""


def test_suspended_step_is_waited_for_without_polling(toy):
    # -x: prints each command
    completed = run("bash", "-x", "pipeline.sh", "--stop", "--fail", cwd=toy)
    assert (completed.stdout, completed.returncode) == ("", 3), completed.stderr[-2000:]
    assert completed.stderr.count("+ wait ") == 1  # regression: hundreds of times, in a busy loop


def test_multi_pipeline_runs_the_seeds_and_prints_their_summary(toy):
    completed = run("./multi_pipeline.sh", "--x", "1", cwd=toy, tag="t", n_runs="2", first_seed="5")
    runs = toy / "runs" / "toy"
    arguments = [meta(runs / name)["arguments"] for name in ("run0", "run1")]
    assert arguments == [
        ["--tag", f"t_seed{seed}", "--x", "1", "--training.seed", f"{seed}"] for seed in (5, 6)
    ]
    mean, deviation, lowest = completed.stdout.splitlines()[-3:]
    assert mean.split() == ["mean", "1.0000", "0.5000"]
    assert lowest.split() == ["lowest", "loss:", "run0", "0.5000", "0.0000"]


def test_make_passes_its_variables_to_the_pipeline(toy):
    options = ["CUDA=0", "CONFIG=c.yml", "TAG=t", "IMAGES=it's my photos", "K=3"]
    completed = run("make", "toy", *options, "SET=--x 'a b' --y 1", cwd=toy.parent)
    folder = toy / "runs" / "toy" / "run0"
    assert (completed.stdout, completed.returncode) == (f"{folder}\n", 0), completed.stderr
    assert meta(folder) == {
        "arguments": [
            *("--config", "c.yml", "--tag", "t"),
            *("--dataset.name", "folder", "--dataset.path", "it's my photos"),
            *("--model.n_clusters", "3", "--x", "a b", "--y", "1"),
        ],
        "gpu": "0",
    }


def test_make_fails_when_a_step_fails(toy):
    completed = run("make", "toy", "SET=--fail", cwd=toy.parent)
    assert completed.stdout == "" and completed.returncode != 0


def test_make_refuses_an_unknown_extra(toy):
    completed = run("make", "toy", "EXTRA=gpu", cwd=toy.parent)
    assert completed.returncode == 2 and "EXTRA is gpu: expected cpu or cuda" in completed.stderr


def test_make_help_names_every_paper(toy):
    assert "PAPER is one of: toy" in run("make", cwd=toy.parent).stdout


def test_make_explains_a_missing_interpreter(toy):
    (toy.parent / ".venv/bin/python").unlink()
    completed = run("make", "setup", "PYTHON=no-such-python", cwd=toy.parent)
    assert completed.returncode != 0 and "make PYTHON=python3.12" in completed.stderr


@pytest.mark.parametrize(
    ("target", "is_ok", "total"),
    [("test", False, "1 failed, 1 passed"), ("test-fast", True, "1 passed, 1 deselected")],
)
def test_make_runs_the_suites(toy, target, is_ok, total):
    tests = toy.parent / "tests"
    (tests / "toy_torch").mkdir(parents=True)
    (tests / "toy_torch/test_toy.py").write_text(
        "import pytest\ndef test_a(): pass\n@pytest.mark.slow\ndef test_b(): assert 0"
    )
    (tests / "test_top.py").write_text("def test_c(): pass")
    (toy.parent / ".venv/installed-cpu,dev").touch()
    completed = run("make", target, cwd=toy.parent)
    assert (completed.returncode == 0) == is_ok, completed.stderr
    # the output of each suite, then its last line once more
    assert completed.stdout.count(total) == 2 and "== tests/toy_torch" in completed.stdout
