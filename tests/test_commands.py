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
PAPER = ROOT / "dti_torch"  # it has all that a paper can have

TRAIN = """
import json, os, pathlib, signal, subprocess, sys
arguments = sys.argv[1:]
if "--stop" in arguments:  # and go on as soon as somebody says so, again and again until the end
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
    os.write(2, b"waiting\\n")  # unbuffered: the signal may come in the middle of it
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
    for name in ("python", "python3"):  # a link would lose this interpreter's own packages
        (binaries / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (binaries / name).chmod(0o755)
    (root / ".venv" / "installed-torch-cpu").touch()
    return paper


def bare(**variables):
    """An environment without an active virtual one, and without what an outer make handed down."""
    return {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ} | variables


def call(*command, cwd, **variables):
    return subprocess.run(command, cwd=cwd, env=bare(**variables), capture_output=True, text=True)


def meta(run):
    return json.loads((run / "meta.json").read_text())


def test_pipeline_runs_all_steps_and_prints_the_run_folder_alone(toy):
    done = call("./pipeline.sh", cwd=toy)
    run = toy / "runs" / "toy" / "run0"
    assert (done.stdout, done.returncode) == (f"{run}\n", 0), done.stderr
    assert {"pred.txt", "scores.json", "report.html"} <= {path.name for path in run.iterdir()}
    assert meta(run) == {"arguments": [], "gpu": None}


def test_pipeline_hands_its_variables_and_arguments_to_train(toy):
    call("bash", toy / "pipeline.sh", "--x", "a b", cwd="/", cuda="1", config="c.yml", tag="t")
    assert meta(toy / "runs/toy/run0") == {
        "arguments": ["--config", "c.yml", "--tag", "t", "--x", "a b"],
        "gpu": "1",
    }


def test_pipeline_stops_with_the_code_of_the_step_that_failed(toy):
    done = call("./pipeline.sh", "--fail", cwd=toy)
    assert (done.stdout, done.returncode) == ("", 3)
    (toy / "pred.py").write_text("raise SystemExit(2)")
    done = call("./pipeline.sh", cwd=toy)
    assert (done.stdout, done.returncode) == ("", 2)
    assert not (toy / "runs/toy/run0/scores.json").exists()


@pytest.mark.parametrize("script", ["pipeline.sh", "multi_pipeline.sh"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_training_once_and_ends_the_script(toy, script, number):
    process = subprocess.Popen(
        [toy / script, "--wait"],
        env=bare(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal does: Ctrl-C goes to the whole group
        # what runs in the background, `make test &`, ignores Ctrl-C, and so do its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr.readline() == "waiting\n"
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert err.count(f"got {int(signal.SIGTERM)}\n") == 1
    assert out == ""


def test_a_training_that_is_stopped_for_a_while_is_waited_for_once(toy):
    done = call("bash", "-x", "pipeline.sh", "--stop", "--fail", cwd=toy)  # -x: says what it does
    assert (done.stdout, done.returncode) == ("", 3), done.stderr[-2000:]
    assert done.stderr.count("+ wait ") == 1  # it was hundreds of times, at full speed


def test_multi_pipeline_runs_the_seeds_and_keeps_the_lowest_loss(toy):
    done = call("./multi_pipeline.sh", "--x", "1", cwd=toy, tag="t", n_runs="2", first_seed="5")
    runs = toy / "runs" / "toy"
    arguments = [meta(runs / name)["arguments"] for name in ("run0", "run1")]
    assert arguments == [
        ["--tag", f"t_seed{seed}", "--x", "1", "--training.seed", f"{seed}"] for seed in (5, 6)
    ]
    mean, deviation, lowest = done.stdout.splitlines()[-3:]
    assert mean.split() == ["mean", "1.0000", "0.5000"]
    assert lowest.split() == ["lowest", "loss:", "run0", "0.5000", "0.0000"]


def test_make_prints_the_run_folder_alone_and_passes_everything_on(toy):
    options = ["CUDA=0", "CONFIG=c.yml", "TAG=t", "IMAGES=it's my photos", "K=3"]
    done = call("make", "toy", *options, "SET=--x 'a b' --y 1", cwd=toy.parent)
    run = toy / "runs" / "toy" / "run0"
    assert (done.stdout, done.returncode) == (f"{run}\n", 0), done.stderr
    assert meta(run) == {
        "arguments": [
            *("--config", "c.yml", "--tag", "t"),
            *("--dataset.name", "folder", "--dataset.path", "it's my photos"),
            *("--model.n_clusters", "3", "--x", "a b", "--y", "1"),
        ],
        "gpu": "0",
    }


def test_make_fails_when_a_step_does(toy):
    done = call("make", "toy", "SET=--fail", cwd=toy.parent)
    assert done.stdout == "" and done.returncode != 0


def test_make_refuses_an_unknown_extra_in_one_line(toy):
    done = call("make", "toy", "EXTRA=gpu", cwd=toy.parent)
    assert done.returncode == 2 and "EXTRA is gpu: cpu or cuda was expected" in done.stderr


def test_make_help_names_every_paper(toy):
    assert "PAPER is one of: toy" in call("make", cwd=toy.parent).stdout


def test_make_names_what_a_missing_interpreter_needs(toy):
    (toy.parent / ".venv/bin/python").unlink()
    done = call("make", "setup", "PYTHON=no-such-python", cwd=toy.parent)
    assert done.returncode != 0 and "make PYTHON=python3.12" in done.stderr
