import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from common import UserError, cli
from common.config import load_config

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Dataset:
    name: str = "digits"  # which images
    path: str | None = None


@dataclass(frozen=True)
class Model:
    name: Literal["kmeans", "gmm"] = "kmeans"
    n_clusters: int = 10
    parts: tuple[str, ...] = ("identity",)
    legacy: bool = False


@dataclass(frozen=True)
class Training:
    lr: float = 1e-3  # 100 % of the step size
    n_epochs: int = 4
    widths: list[float] = field(default_factory=lambda: [1.0])

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"training.lr: expected more than 0, found {self.lr}")


@dataclass(frozen=True)
class Config:
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)


@pytest.fixture
def paper(tmp_path):
    folder = tmp_path / "a paper_torch"
    (folder / "configs").mkdir(parents=True)
    (folder / "configs/digits.yml").write_text("training: {lr: 0.5, n_epochs: 2}\n")
    (folder / "configs/folder.yml").write_text("dataset: {name: folder}\n")
    return folder


@pytest.fixture
def start(paper, monkeypatch):
    def call(*argv):
        monkeypatch.setattr(sys, "argv", [str(paper / "train.py"), *map(str, argv)])
        return cli.start(Config, str(paper / "train.py"))

    return call


@pytest.fixture
def refused(start, paper):
    def call(*argv):
        before = sorted(paper.rglob("*"))
        with pytest.raises(UserError) as error:
            start(*argv)
        assert "\n" not in str(error.value)
        assert sorted(paper.rglob("*")) == before, "a refused config writes nothing"
        return str(error.value)

    return call


def write(paper, text):
    path = paper / "configs/mine.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_command_line_goes_before_the_file_and_the_file_before_the_class(start):
    cfg, run = start("--training.lr", "0.25", "--tag", "try1")
    assert cfg == Config(training=Training(lr=0.25, n_epochs=2))
    assert run.path.name.endswith("_try1") and run.path.parent.name == "digits"


def test_own_images_have_a_config_of_their_own(start):
    photos = str(Path("photos").resolve())  # another folder may be the current one later
    assert start("--dataset.path", "photos")[0].dataset == Dataset("folder", photos)
    assert start("--dataset.path", "photos", "--config", "digits.yml")[0].dataset.name == "digits"


@dataclass(frozen=True)
class Tree:
    name: Literal["tree"] = "tree"
    depth: int = 3


@dataclass(frozen=True)
class TreeConfig:
    dataset: Dataset = field(default_factory=Dataset)
    model: Tree = field(default_factory=Tree)


def test_a_paper_of_several_models_has_a_config_class_for_each(paper, monkeypatch):
    classes = {"kmeans": Config, "tree": TreeConfig}
    for name, text in {"tree": "model: {name: tree, depth: 5}", "tree_folder": "{}"}.items():
        (paper / f"configs/{name}.yml").write_text(text)
    default = {"kmeans": "digits.yml", "tree": "tree.yml"}

    def start(*argv):
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, argv)])
        return cli.start(classes, str(paper / "train.py"), default)

    assert start()[0] == Config(training=Training(lr=0.5, n_epochs=2))
    cfg, run = start("--model.name", "tree")
    assert cfg == TreeConfig(model=Tree(depth=5))
    assert start("--config", "tree.yml", "--model.depth=7")[0].model == Tree(depth=7)
    assert start("--resume", run.path)[0] == cfg
    photos = str(Path("photos").resolve())
    assert start("--model.name=tree", "--dataset.path", "photos")[0].dataset.path == photos
    assert load_config(classes, str(paper / "train.py"), "tree.yml") == cfg
    monkeypatch.setattr(sys, "argv", ["pred.py", str(run.path)])
    assert cli.open_run(classes, str(paper / "pred.py"), "")[0] == cfg
    for argv, reason in (
        (["--model.name", "trees"], "model.name: expected one of kmeans, tree, found trees"),
        (["--config", "tree.yml", "--model.n_clusters", 3], "no option --model.n_clusters"),
        (["--config", "digits.yml", "--model.depth", 3], "no option --model.depth"),
    ):
        with pytest.raises(UserError, match=reason):
            start(*argv)


def test_a_config_is_a_name_of_the_paper_or_a_path(start, paper, tmp_path):
    (tmp_path / "mine.yml").write_text("model: {n_clusters: 3}")
    assert start("--config", "folder.yml")[0].dataset.name == "folder"
    assert start("--config", tmp_path / "mine.yml")[0].model.n_clusters == 3


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "- a\n- b\n", "just words"])
def test_a_config_that_is_no_mapping_is_refused(refused, paper, text):
    assert "expected sections" in refused("--config", write(paper, text))


@pytest.mark.parametrize(
    "text", ["a: b: c", "training: [1, 2", b"\xff\xfe\x00", "a: 2020-13-45", "[" * 900]
)
def test_what_is_not_yaml_is_refused_by_name(refused, paper, text):
    assert "mine.yml" in refused("--config", write(paper, text))


def test_an_absent_config_is_refused_with_those_there_are(refused):
    assert refused("--config", "nope.yml").endswith("digits.yml, folder.yml")


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("training: {lrr: 1}", "training.lrr", "training.lr"),
        ("trainin: {n_epoch: 1}", "trainin.n_epoch", "training.n_epochs"),
        ("n_clusters: 3", "n_clusters", "model.n_clusters"),
        ("1: 2", "1", ""),
        ("dataset: {class_path: os.system}", "dataset.class_path", "dataset.path"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(refused, paper, text, key, nearest):
    line = refused("--config", write(paper, text))
    assert f"no key {key};" in line and nearest in line


def test_an_unknown_option_is_refused_with_the_nearest_one(refused):
    assert refused("--training.lrr=3") == "no option --training.lrr; did you mean --training.lr?"
    assert "--training.lr" in refused("--train", "3")
    assert "--dataset." in refused("--dataset", "file.yml")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("training.lr", "fast", "float"),
        ("training.lr", "null", "float"),
        ("training.lr", "true", "float"),
        ("training.lr", "[1]", "float"),
        ("training.n_epochs", "1.5", "int"),
        ("training.n_epochs", "{a: 1}", "int"),
        ("training.widths", "3", "a list [...] of float"),
        ("model.parts", "identity", "a list [...] of str"),
        ("model.name", "gnn", "one of kmeans, gmm"),
        ("model.legacy", "2", "bool"),
    ],
)
def test_a_wrong_type_names_key_value_and_type(refused, paper, key, value, expected):
    section, name = key.split(".")
    in_file = refused("--config", write(paper, f"{section}: {{{name}: {value}}}"))
    assert f"{key}: expected {expected}, found " in in_file
    assert f"{key}: expected {expected}, found " in refused(f"--{key}", value)


@pytest.mark.parametrize("text", ["training: 5", "training: [1]"])
def test_a_section_that_is_no_mapping_is_refused(refused, paper, text):
    assert "training is a section" in refused("--config", write(paper, text))


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "[1, .nan]"])
def test_nan_and_infinity_are_refused_in_a_file(refused, paper, value):
    key = "widths" if "[" in value else "lr"
    assert f"training.{key}: expected" in refused(
        "--config", write(paper, f"training: {{{key}: {value}}}")
    )


@pytest.mark.parametrize("value", ["nan", ".nan", "inf", "1e999", "-1", "0"])
def test_nan_infinite_and_negative_rates_are_refused_on_the_command_line(refused, value):
    assert "training.lr: expected" in refused("--training.lr", value)


def test_a_python_tag_is_refused_and_nothing_executed(refused, paper, tmp_path):
    tag = f"training: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'harm'}]"
    assert "could not determine a constructor" in refused("--config", write(paper, tag))
    assert not (tmp_path / "harm").exists()


def test_a_number_without_a_dot_is_a_number(start, paper):
    write(paper, "training: {lr: 1e-4}")
    assert start("--config", "mine.yml")[0].training.lr == 1e-4
    assert start("--training.lr", "2e-4")[0].training.lr == 2e-4


def test_byte_order_mark_and_carriage_returns_are_read(start, paper):
    write(paper, b"\xef\xbb\xbftraining:\r\n  lr: 0.125\r\n  n_epochs: 7\r\n")
    assert start("--config", "mine.yml")[0].training == Training(lr=0.125, n_epochs=7)


def test_an_empty_section_is_the_default(start, paper):
    write(paper, "training:\nmodel: {}\n")
    assert start("--config", "mine.yml")[0] == Config()


@pytest.mark.parametrize("tag", ["a/b", "..", "", "a b", "é"])
def test_a_tag_that_cannot_name_a_folder_is_refused(refused, tag):
    assert "--tag" in refused("--tag", tag)


def test_the_name_of_the_data_cannot_leave_the_runs_folder(refused):
    assert "--dataset.name" in refused("--dataset.name", "../../x")


def test_an_output_that_cannot_be_written_is_refused(start, paper):
    (paper / "runs").write_text("a file where a folder belongs")
    with pytest.raises(UserError, match="cannot write"):
        start()


@pytest.mark.parametrize(
    "path", ["1e3", "null ", "[a, b]", "{a: b}", "é 'x' \"y\"", "yes", "- a", "@x"]
)
def test_the_written_config_is_read_back_the_same(start, paper, path):
    cfg, run = start("--dataset.path", path, "--model.parts", "[a, 'null', '3']")
    assert start("--resume", run.path)[0] == cfg
    assert run.config == {key: dict(value) for key, value in asdict(cfg).items()} | {
        "model": asdict(cfg.model) | {"parts": ["a", "null", "3"]}
    }


def test_resume_keeps_the_config_of_the_run(start, refused):
    cfg, run = start("--training.lr", "0.125", "--tag", "x")
    name = f"digits/{run.path.name}"
    assert start("--resume", name)[0] == cfg, "also found under the paper's runs/"
    assert start("--resume", run.path, "--training.lr", "1.25e-1", "--tag", "x")[0] == cfg
    assert "--training.lr 3.0: the resumed run has 0.125" in refused(
        "--resume", run.path, "--training.lr", "3"
    )
    assert "--tag y" in refused("--resume", run.path, "--tag", "y")
    assert "--training.lr 0.5" in refused("--resume", run.path, "--config", "digits.yml")


def test_a_finished_run_is_not_resumed(start, refused, capsys):
    _, run = start()
    with run:
        pass
    assert capsys.readouterr().out == f"{run.path}\n"
    assert "already finished" in refused("--resume", run.path)


def open_run(paper, monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", [str(paper / "pred.py"), *map(str, argv)])
    return cli.open_run(
        Config,
        str(paper / "pred.py"),
        "Predict.",
        input={"help": "a file"},
        out_dir={"default": "here"},
        n={"type": int},
    )


def test_open_run_gives_config_run_and_options(start, paper, monkeypatch):
    cfg, run = start()
    found, again, args = open_run(paper, monkeypatch, run.path, "--input", "a b.png", "--n", "3")
    assert (found, again.path, vars(args)) == (
        cfg,
        run.path,
        {"input": "a b.png", "out_dir": "here", "n": 3},
    )
    assert open_run(paper, monkeypatch, f"digits/{run.path.name}")[1].path == run.path


def test_without_a_run_it_is_the_newest(start, paper, monkeypatch):
    with pytest.raises(UserError, match="no run yet: train.py makes one"):
        open_run(paper, monkeypatch)
    runs = [start("--tag", tag)[1] for tag in ("b", "a", "c")]
    os.utime(runs[1].path / "config.yml", (2e9, 2e9))
    assert open_run(paper, monkeypatch, "--n", "3")[1].path == runs[1].path


def test_open_run_refuses_what_is_no_run_of_this_paper(start, paper, monkeypatch, tmp_path):
    _, run = start()
    for argv, reason in [
        ([tmp_path], "no run folder"),
        (["nope"], "no run folder"),
        ([run.path, "--inpt", "x"], "did you mean --input"),
        ([run.path, "--n", "x"], "Expected a .*int"),
    ]:
        with pytest.raises(UserError, match=reason):
            open_run(paper, monkeypatch, *argv)
    (run.path / "config.yml").write_text("model: {n_heads: 3}")
    with pytest.raises(UserError, match="no key model.n_heads"):
        open_run(paper, monkeypatch, run.path)


def script(tmp_path, body, *argv, tail=""):
    path = tmp_path / "script.py"
    path.write_text(
        f"import multiprocessing, os, signal, sys\nsys.path[0] = {str(ROOT)!r}\n"
        f"from common import UserError, cli\ndef main():\n    {body}\ncli.main(main)\n"
    )
    command = f"set -o pipefail; '{sys.executable}' '{path}' {' '.join(argv)} {tail}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    answer = script(tmp_path, "raise UserError('a is b:\\n run c')")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "error: a is b: run c\n"


def test_a_full_disk_is_one_line_and_exit_code_2(tmp_path):
    answer = script(tmp_path, "open('/dev/full', 'w', buffering=1).write('x\\n')")
    assert answer.returncode == 2 and answer.stderr.startswith("error: ")
    assert "No space left" in answer.stderr and answer.stderr.count("\n") == 1


def test_a_bug_keeps_its_traceback(tmp_path):
    answer = script(tmp_path, "[][1]")
    assert answer.returncode == 1 and "IndexError" in answer.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_is_one_line(tmp_path, name, code):
    answer = script(tmp_path, f"os.kill(os.getpid(), signal.{name})")
    assert answer.returncode == code
    assert answer.stderr.count("\n") == 1 and name in answer.stderr


def test_worker_processes_can_be_ended(tmp_path):
    body = (
        "signal.signal(signal.SIGTERM, lambda *_: None)  # as a training loop does\n"
        "    fork = multiprocessing.get_context('fork'); up = fork.Event()\n"
        "    worker = fork.Process(target=lambda: (up.set(), signal.pause())); worker.start()\n"
        "    up.wait(); worker.terminate(); worker.join(); print(worker.exitcode)"
    )
    assert script(tmp_path, body).stdout == "-15\n"


@pytest.mark.parametrize("n", [1, 100_000])  # within, and beyond what is buffered
def test_a_closed_stdout_is_clean(tmp_path, n):
    answer = script(tmp_path, f"sys.stdin.read(); print('x\\n' * {n})", tail="< <(:) | head -0")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_broken_pipe_elsewhere_is_a_bug(tmp_path):
    answer = script(tmp_path, "raise BrokenPipeError('a worker died')")
    assert answer.returncode == 1 and "a worker died" in answer.stderr


def test_help_shows_every_key_with_its_comment_and_default(start, capsys):
    with pytest.raises(SystemExit) as stop:
        start("-h")
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert "--training.lr LR 100 % of the step size; default 0.001" in text
    assert "--dataset.name NAME which images; default 'digits'" in text
    assert "--model.parts" in text and "--resume" in text
