import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import UserError
from common.run import Run, Stopped

ROOT = Path(__file__).resolve().parents[2]

# Four epochs of five steps on one number; the environment says where a signal count.
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

def kill_at(where):
    if os.environ.get("STRIKE", "").startswith(where + ":"):
        os.kill(os.getpid(), getattr(signal, os.environ["STRIKE"].split(":")[1]))

def main():
    cfg, run = cli.start(Config, __file__)
    with run:
        kill_at("data")
        state = {{"step": 0, "epoch": 0, "at": 0, "x": 1.0}}
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
            while state["at"] < 5:
                rate = random.Random(state["step"]).random()
                state["step"], state["at"] = state["step"] + 1, state["at"] + 1
                state["x"] += rate
                kill_at(f"step{{state['step']}}")
                if os.environ.get("BUG") == str(state["step"]):
                    [][1]
                run.log("train", state["step"], epoch=epoch, loss=state["x"])
                if run.stopping:
                    checkpoint()
                    run.stop()
            state |= {{"epoch": epoch + 1, "at": 0}}
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
    environment = os.environ | {"STRIKE": "", "BUG": ""} | environment
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def the_run(paper):
    (path,) = (paper / "runs/digits").iterdir()
    return path


def status(path):
    return json.loads((path / "meta.json").read_text())["status"]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """metrics.jsonl and the result of a run that nothing disturbs."""
    folder = make_paper(tmp_path_factory.mktemp("whole") / "paper")
    answer = train(folder)
    path = the_run(folder)
    assert (answer.returncode, answer.stdout) == (0, f"{path}\n"), answer.stderr
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
def test_a_stopped_run_goes_on_as_if_never_stopped(paper, finished_run, name, code):
    stopped = train(paper, STRIKE=f"step7:{name}")
    path = the_run(paper)
    assert (stopped.returncode, stopped.stdout, status(path)) == (code, "", "stopped")
    assert f"train.py' --resume '{path}'" in stopped.stderr.splitlines()[-1]
    assert (path / "checkpoints/000000007").is_dir()
    resumed = train(paper, "--resume", path)
    assert (resumed.returncode, resumed.stdout) == (0, f"{path}\n")
    assert outcome(path) == finished_run
    assert "stopping after this step" in (path / "train.log").read_text()
    assert (path / "train.log").read_text().count("run folder") == 2, "appended"


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(paper, finished_run):
    assert train(paper, STRIKE="data:SIGTERM").returncode == 143
    path = the_run(paper)
    assert status(path) == "stopped"
    assert train(paper, "--resume", path).returncode == 0
    assert outcome(path) == finished_run


def test_a_kill_while_saving_leaves_the_previous_checkpoint(paper, finished_run):
    assert train(paper, STRIKE="save15:SIGKILL").returncode == -signal.SIGKILL
    path = the_run(paper)
    names = {folder.name for folder in (path / "checkpoints").iterdir()}
    assert names == {"000000005", "000000010", ".tmp"} and status(path) == "running"
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"split": "tr')  # as a kill in the middle of a line leaves it
    assert train(paper, "--resume", path).returncode == 0, (
        "nor is a dead process's lock a hindrance"
    )
    assert outcome(path) == finished_run
    names = {folder.name for folder in (path / "checkpoints").iterdir()}
    assert names == {"000000015", "000000020"}


def test_a_truncated_checkpoint_gives_way_to_the_previous(paper, finished_run):
    train(paper, STRIKE="step13:SIGTERM")
    path = the_run(paper)
    file = path / "checkpoints/000000013/state.json"
    os.truncate(file, file.stat().st_size - 1)
    resumed = train(paper, "--resume", path)
    assert "000000013 is damaged" in resumed.stderr and resumed.returncode == 0
    assert outcome(path) == finished_run


def test_a_bug_is_in_the_log_and_the_run_failed(paper):
    answer = train(paper, BUG="3")
    path = the_run(paper)
    assert (answer.returncode, answer.stdout, status(path)) == (1, "", "failed")
    assert "IndexError" in answer.stderr and "IndexError" in (path / "train.log").read_text()


def test_a_new_run_that_is_refused_leaves_nothing(run, tmp_path):
    with pytest.raises(UserError), run:
        raise UserError("no images")
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_that_is_refused_is_kept(run):
    with pytest.raises(UserError), Run.open(run.path):
        raise UserError("no images")
    assert status(run.path) == "failed"


def test_nobody_reads_stdout(paper):
    command = f"set -o pipefail; '{sys.executable}' '{paper / 'train.py'}' | head -0"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0 and "rror" not in answer.stderr
    assert status(the_run(paper)) == "done"


def test_an_absent_monitor_is_one_warning(paper, finished_run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        port = free.getsockname()[1]
        answer = train(paper, "--training.visdom_port", port)
    assert answer.returncode == 0 and answer.stderr.count("WARNING") == 1
    assert f"no visdom on port {port}" in answer.stderr
    assert outcome(the_run(paper)) == finished_run


def test_a_monitor_that_never_answers_is_one_warning(run):
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


def test_tensorboard_events_come_without_torch_and_tensorflow(tmp_path):
    code = (
        "import sys; from pathlib import Path; from common.run import Run\n"
        f"run = Run.create(Path({str(tmp_path)!r}), 'digits', 't', {{}})\n"
        "with run: run.log('train', 1, loss=0.5)\n"
        "assert not {'torch', 'tensorflow', 'keras'} & set(sys.modules), 'a framework was imported'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (events,) = tmp_path.glob("runs/digits/*/events.out.tfevents.*")
    assert b"train/loss" in events.read_bytes()


def test_a_run_folder_is_never_overwritten(tmp_path):
    paths = [Run.create(tmp_path, "digits", "t", {}).path.name[4:] for _ in range(3)]
    assert paths == ["_t", "_t_2", "_t_3"]


def test_meta_says_where_a_run_comes_from(run):
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


def test_two_processes_do_not_train_in_one_folder(run):
    with run:
        with pytest.raises(UserError, match="another process"):
            Run.open(run.path).__enter__()
    with Run.open(run.path):
        pass


def test_a_run_folder_that_cannot_be_written_is_refused(run):
    (run.path / ".lock").mkdir()
    with pytest.raises(UserError, match="cannot write"), run:
        pass


def test_metrics_are_plain_json_lines(run):
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
def test_a_nan_loss_stops_with_the_step_and_keeps_the_checkpoint(run, loss):
    with pytest.raises(UserError, match=r"loss became (nan|inf) at step 12; .*000000010"):
        with run:
            save(run, 10)
            run.log("train", 12, loss=loss)
    assert status(run.path) == "failed" and run.latest_checkpoint().step == 10
    assert "became" in (run.path / "train.log").read_text()


def test_a_file_of_scores_holds_no_nan(run):
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


def test_a_checkpoint_of_the_same_step_replaces_the_former(run):
    with run:
        save(run, 10)
        save(run, 10, "other")
        assert (run.latest_checkpoint().path / "w.bin").read_text() == "other"
        assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["000000010"]


def test_going_on_from_an_older_checkpoint_drops_the_damaged_newer_one(run):
    with run:
        for step in (10, 20):
            save(run, step)
        (run.path / "checkpoints/000000020/manifest.json").write_text("")
        assert run.latest_checkpoint().step == 10
        save(run, 15)
        assert [path.name for path in run._paths()] == ["000000010", "000000015"]


@pytest.mark.parametrize("damage", ["", "null", "[]", '{"w.bin": "0"}', '{"absent": "0"}'])
def test_no_intact_checkpoint_is_refused_by_name(run, damage):
    with run:
        save(run, 10)
    (run.path / "checkpoints/000000010/manifest.json").write_text(damage)
    with pytest.raises(UserError, match="000000010"):
        run.latest_checkpoint()


def test_the_first_signal_asks_and_the_second_stops(run):
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


def test_a_folder_without_config_or_meta_is_no_run(run, tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        Run.open(tmp_path)
    (run.path / "meta.json").write_text('{"argv": [')
    with pytest.raises(UserError, match="meta.json"):
        Run.open(run.path)


def test_a_file_that_cannot_be_written_is_one_line(run):
    (run.path / "scores.json").mkdir()  # a folder in its place stops root too
    with pytest.raises(UserError, match="cannot write .*scores.json"):
        run.write_json("scores.json", {"acc": 1.0})
