import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import UserError, cli
from common.run import Run, Stopped

ROOT = Path(__file__).resolve().parents[2]

# Four epochs of five steps that train one number. KILL_AT=PLACE:SIGNAL sends itself a signal there.
TRAIN = f"""
import json, os, random, signal, sys
from dataclasses import dataclass, field
sys.path[0] = {str(ROOT)!r}
from common import cli

@dataclass(frozen=True)
class Dataset:
    name: str = "digits"

@dataclass(frozen=True)
class Training:
    n_epochs: int = 4
    visdom_port: int | None = None

@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    training: Training = field(default_factory=Training)

def kill_at(place):
    if os.environ.get("KILL_AT", "").startswith(place + ":"):
        os.kill(os.getpid(), getattr(signal, os.environ["KILL_AT"].split(":")[1]))

def main():
    cfg, run = cli.start(Config, __file__)
    with run:
        kill_at("data")
        state = {{"step": 0, "epoch": 0, "batch": 0, "x": 1.0}}
        if last := run.latest_checkpoint():
            state = json.loads((last.path / "state.json").read_text())
            assert last.progress == {{"epoch": state["epoch"]}} and last.step == state["step"]
        run.rewind(state["step"] if last else -1)

        def save(path):
            path.write_text(json.dumps(state))
            kill_at(f"save{{state['step']}}")

        def checkpoint():
            run.checkpoint(state["step"], {{"state.json": save}}, epoch=state["epoch"])

        if not last:
            run.log("eval", 0, x=state["x"])
        for epoch in run.epochs(state["epoch"], cfg.training.n_epochs):
            state["epoch"] = epoch
            while state["batch"] < 5:
                rate = random.Random(state["step"]).random()
                state["step"], state["batch"] = state["step"] + 1, state["batch"] + 1
                state["x"] += rate
                kill_at(f"step{{state['step']}}")
                if os.environ.get("BUG") == str(state["step"]):
                    [][1]
                run.log("train", state["step"], epoch=epoch, loss=state["x"])
                if run.stopping:
                    checkpoint()
                    run.stop()
            state |= {{"epoch": epoch + 1, "batch": 0}}
            checkpoint()
        (run.path / "result.json").write_text(json.dumps(state))

if __name__ == "__main__":
    cli.main(main)
"""


def make_paper(folder):
    (folder / "configs").mkdir(parents=True)
    (folder / "configs/digits.yml").write_text("training: {n_epochs: 4}\n")
    (folder / "train.py").write_text(TRAIN)
    return folder


@pytest.fixture
def paper(tmp_path):
    return make_paper(tmp_path / "a paper_torch")


def train(paper, *argv, **environment):
    command = [sys.executable, str(paper / "train.py"), *map(str, argv)]
    environment = os.environ | {"KILL_AT": "", "BUG": ""} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def the_run(paper):
    (path,) = (paper / "runs/digits").iterdir()
    return path


def status(path):
    return json.loads((path / "meta.json").read_text())["status"]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """metrics.jsonl and the result of an uninterrupted run."""
    folder = make_paper(tmp_path_factory.mktemp("finished") / "paper")
    done = train(folder)
    path = the_run(folder)
    assert (done.returncode, done.stdout) == (0, f"{path}\n"), done.stderr
    assert status(path) == "done"
    return outcome(path)


def outcome(path):
    return (path / "metrics.jsonl").read_text(), (path / "result.json").read_text()


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path, "digits", "t", {"training": {"lr": 0.1}})


def save(run, step, text="weights"):
    run.checkpoint(step, {"w.bin": lambda path: path.write_text(text)}, epoch=step // 10)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_resumed_run_equals_an_uninterrupted_one(paper, finished_run, name, code):
    stopped = train(paper, KILL_AT=f"step7:{name}")
    path = the_run(paper)
    assert (stopped.returncode, stopped.stdout, status(path)) == (code, "", "stopped")
    assert f"train.py' --resume '{path}'" in stopped.stderr.splitlines()[-1]
    assert (path / "checkpoints/000000007").is_dir()
    resumed = train(paper, "--resume", path)
    assert (resumed.returncode, resumed.stdout) == (0, f"{path}\n")
    assert outcome(path) == finished_run
    assert "stopping after this step" in (path / "train.log").read_text()
    assert (path / "train.log").read_text().count("run folder") == 2, "appended"


def test_run_stopped_before_its_first_checkpoint_restarts(paper, finished_run):
    assert train(paper, KILL_AT="data:SIGTERM").returncode == 143
    path = the_run(paper)
    assert status(path) == "stopped"
    assert train(paper, "--resume", path).returncode == 0
    assert outcome(path) == finished_run


def test_kill_while_saving_leaves_the_previous_checkpoint(paper, finished_run):
    assert train(paper, KILL_AT="save15:SIGKILL").returncode == -signal.SIGKILL
    path = the_run(paper)
    names = {folder.name for folder in (path / "checkpoints").iterdir()}
    assert names == {"000000005", "000000010", ".tmp"} and status(path) == "running"
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"split": "tr')  # as if killed while writing a line
    assert train(paper, "--resume", path).returncode == 0, "the lock ended with the process"
    assert outcome(path) == finished_run
    names = {folder.name for folder in (path / "checkpoints").iterdir()}
    assert names == {"000000015", "000000020"}


def test_truncated_checkpoint_is_replaced_by_the_previous(paper, finished_run):
    train(paper, KILL_AT="step13:SIGTERM")
    path = the_run(paper)
    file = path / "checkpoints/000000013/state.json"
    os.truncate(file, file.stat().st_size - 1)
    resumed = train(paper, "--resume", path)
    assert "000000013 is damaged" in resumed.stderr and resumed.returncode == 0
    assert outcome(path) == finished_run


def test_exception_is_logged_and_the_run_failed(paper):
    done = train(paper, BUG="3")
    path = the_run(paper)
    assert (done.returncode, done.stdout, status(path)) == (1, "", "failed")
    assert "IndexError" in done.stderr and "IndexError" in (path / "train.log").read_text()


def test_refused_new_run_leaves_no_folder(run, tmp_path):
    with pytest.raises(UserError), run:
        raise UserError("no images")
    assert list(tmp_path.iterdir()) == []


def test_refused_resumed_run_is_kept(run):
    with pytest.raises(UserError), Run.open(run.path):
        raise UserError("no images")
    assert status(run.path) == "failed"


def test_closed_stdout_does_not_fail_the_run(paper):
    command = f"set -o pipefail; '{sys.executable}' '{paper / 'train.py'}' | head -0"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "rror" not in done.stderr
    assert status(the_run(paper)) == "done"


def test_missing_visdom_server_is_one_warning(paper, finished_run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound but not listening: refuses connections
        port = free.getsockname()[1]
        done = train(paper, "--training.visdom_port", port)
    assert done.returncode == 0 and done.stderr.count("WARNING") == 1
    assert f"no visdom on port {port}" in done.stderr
    assert outcome(the_run(paper)) == finished_run


def test_run_folder_is_never_overwritten(tmp_path):
    paths = [Run.create(tmp_path, "digits", "t", {}).path.name[4:] for _ in range(3)]
    assert paths == ["_t", "_t_2", "_t_3"]


def test_meta_has_origin_and_environment(run):
    with run:
        run.note(device="cpu", dataset_checksum="abc")
    meta = json.loads((run.path / "meta.json").read_text())
    assert meta["versions"].keys() >= {"python", "numpy"} and meta["argv"] == sys.argv
    assert (meta["device"], meta["dataset_checksum"], meta["status"]) == ("cpu", "abc", "done")
    assert meta.keys() >= {"year", "date", "git", "host", "threads", "seconds", "pid", "tag"}


def test_seconds_add_up_over_resumes(run):
    run.note(seconds=100.0)
    with Run.open(run.path) as again:
        pass
    assert 100 <= again.meta["seconds"] < 110


def test_run_folder_is_locked(run):
    with run:
        with pytest.raises(UserError, match="another process"):
            Run.open(run.path).__enter__()
    with Run.open(run.path):
        pass


def test_unwritable_run_folder_is_refused(run):
    (run.path / ".lock").mkdir()
    with pytest.raises(UserError, match="cannot write"), run:
        pass


def test_log_writes_json_lines(run):
    values = {"loss": np.float32(0.5), "epoch": 1, "proportion/0": 0.25, "n": np.arange(2)}
    run.log("train", 3, **values)
    (line,) = (run.path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"split": "train", "step": 3, "loss": 0.5, "epoch": 1} | {
        "proportion/0": 0.25,
        "n": [0, 1],
    }
    run.rewind()
    assert (run.path / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize("loss", [float("nan"), np.float32("inf")])
def test_nan_loss_is_refused_and_keeps_the_checkpoint(run, loss):
    with pytest.raises(UserError, match=r"loss became (nan|inf) at step 12; .*000000010"):
        with run:
            save(run, 10)
            run.log("train", 12, loss=loss)
    assert status(run.path) == "failed" and run.latest_checkpoint().step == 10
    assert "became" in (run.path / "train.log").read_text()


def test_write_json_refuses_nan(run):
    with pytest.raises(UserError, match="scores.json"):
        run.write_json("scores.json", {"acc": float("nan")})
    assert not (run.path / "scores.json").exists()


def test_the_newest_two_checkpoints_are_kept(run):
    with run:
        assert run.latest_checkpoint() is None
        for step in (10, 20, 30):
            save(run, step)
        assert [path.name for path in run._paths()] == ["000000020", "000000030"]
        path, step, progress = run.latest_checkpoint()
        assert (step, progress, (path / "w.bin").read_text()) == (30, {"epoch": 3}, "weights")


def test_checkpoint_of_the_same_step_is_replaced(run):
    with run:
        save(run, 10)
        save(run, 10, "other")
        assert (run.latest_checkpoint().path / "w.bin").read_text() == "other"
        assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["000000010"]


def test_resuming_from_an_older_checkpoint_deletes_later_ones(run):
    with run:
        for step in (10, 20):
            save(run, step)
        (run.path / "checkpoints/000000020/manifest.json").write_text("")
        assert run.latest_checkpoint().step == 10
        save(run, 15)
        assert [path.name for path in run._paths()] == ["000000010", "000000015"]


@pytest.mark.parametrize("damage", ["", "null", "[]", '{"w.bin": "0"}', '{"absent": "0"}'])
def test_damaged_checkpoints_are_refused_by_name(run, damage):
    with run:
        save(run, 10)
    (run.path / "checkpoints/000000010/manifest.json").write_text(damage)
    with pytest.raises(UserError, match="000000010"):
        run.latest_checkpoint()


def test_require_checkpoint_names_the_command_to_resume(run):
    with pytest.raises(
        UserError, match="has no checkpoint yet: continue it with train.py --resume"
    ):
        run.require_checkpoint()
    with run:
        save(run, 10)
    assert run.require_checkpoint() == run.latest_checkpoint()


def test_checkpoint_is_due_after_some_seconds(run, monkeypatch):
    assert not run.is_checkpoint_due()
    with run:
        save(run, 10)
        monkeypatch.setattr("common.run.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
        assert run.is_checkpoint_due()


def test_check_dataset_compares_checksums(run):
    run.check_dataset("abc")  # nothing noted yet
    run.note(dataset_checksum="abc")
    run.check_dataset("abc")
    reason = r"the dataset changed since training \(checksum mismatch\): "
    with pytest.raises(UserError, match=reason + "start a new run"):
        run.check_dataset("abd")
    with pytest.raises(UserError, match=reason + "pass these images with --input"):
        run.check_dataset("abd", cli.PASS_AS_INPUT)


def test_first_signal_requests_a_stop_and_the_second_stops(run):
    reached = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        for epoch in run.epochs(0, 3):
            assert not run.stopping
            signal.raise_signal(signal.SIGTERM)
            reached.append((epoch, run.stopping))
            signal.raise_signal(signal.SIGTERM)
    assert reached == [(0, True)]
    assert signal.getsignal(signal.SIGTERM) is before


def test_open_refuses_a_folder_without_config_or_meta(run, tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        Run.open(tmp_path)
    (run.path / "meta.json").write_text('{"argv": [')
    with pytest.raises(UserError, match="meta.json"):
        Run.open(run.path)


def test_write_json_refuses_an_unwritable_file(run):
    (run.path / "scores.json").mkdir()  # not even root can write a file over a folder
    with pytest.raises(UserError, match="cannot write .*scores.json"):
        run.write_json("scores.json", {"acc": 1.0})
