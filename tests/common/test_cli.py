import os
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import pytest

from common import UserError, cli
from common.config import load_config
from tests.common.config_classes import Config, Dataset, Training, Tree, TreeConfig

ROOT = Path(__file__).resolve().parents[2]


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
        assert sorted(paper.rglob("*")) == before, "nothing is written"
        return str(error.value)

    return call


def write(paper, text):
    path = paper / "configs/mine.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_command_line_overrides_file_and_file_overrides_defaults(start):
    cfg, run = start("--training.lr", "0.25", "--tag", "try1")
    assert cfg == Config(training=Training(lr=0.25, n_epochs=2))
    assert run.path.name.endswith("_try1") and run.path.parent.name == "digits"


def test_dataset_path_selects_the_folder_config(start):
    photos = str(Path("photos").resolve())  # absolute, for other working directories
    assert start("--dataset.path", "photos")[0].dataset == Dataset("folder", photos)
    assert start("--dataset.path", "photos", "--config", "digits.yml")[0].dataset.name == "digits"


def test_paper_with_several_models_has_a_config_class_for_each(paper, monkeypatch):
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


def test_config_is_a_name_or_a_path(start, paper, tmp_path):
    (tmp_path / "mine.yml").write_text("model: {n_clusters: 3}")
    assert start("--config", "folder.yml")[0].dataset.name == "folder"
    assert start("--config", tmp_path / "mine.yml")[0].model.n_clusters == 3


@pytest.mark.parametrize("text", ["", "\n# only a comment\n", "- a\n- b\n", "just words"])
def test_config_without_sections_is_refused(refused, paper, text):
    assert "expected sections" in refused("--config", write(paper, text))


@pytest.mark.parametrize(
    "text", ["a: b: c", "training: [1, 2", b"\xff\xfe\x00", "a: 2020-13-45", "[" * 900]
)
def test_invalid_yaml_is_refused_by_name(refused, paper, text):
    assert "mine.yml" in refused("--config", write(paper, text))


def test_missing_config_is_refused_with_the_shipped_ones(refused):
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
def test_unknown_key_is_refused_with_the_nearest(refused, paper, text, key, nearest):
    line = refused("--config", write(paper, text))
    assert f"no key {key};" in line and nearest in line


def test_unknown_option_is_refused_with_the_nearest(refused):
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
def test_wrong_type_names_key_value_and_type(refused, paper, key, value, expected):
    section, name = key.split(".")
    in_file = refused("--config", write(paper, f"{section}: {{{name}: {value}}}"))
    assert f"{key}: expected {expected}, found " in in_file
    assert f"{key}: expected {expected}, found " in refused(f"--{key}", value)


@pytest.mark.parametrize("text", ["training: 5", "training: [1]"])
def test_section_that_is_not_a_mapping_is_refused(refused, paper, text):
    assert "training must be a section of keys" in refused("--config", write(paper, text))


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "[1, .nan]"])
def test_nan_and_infinity_in_a_file_are_refused(refused, paper, value):
    key = "widths" if "[" in value else "lr"
    assert f"training.{key}: expected" in refused(
        "--config", write(paper, f"training: {{{key}: {value}}}")
    )


@pytest.mark.parametrize("value", ["nan", ".nan", "inf", "1e999", "-1", "0"])
def test_invalid_numbers_on_the_command_line_are_refused(refused, value):
    assert "training.lr: expected" in refused("--training.lr", value)


def test_python_tag_is_refused_and_not_executed(refused, paper, tmp_path):
    tag = f"training: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'harm'}]"
    assert "could not determine a constructor" in refused("--config", write(paper, tag))
    assert not (tmp_path / "harm").exists()


def test_number_without_a_dot_is_a_float(start, paper):
    write(paper, "training: {lr: 1e-4}")
    assert start("--config", "mine.yml")[0].training.lr == 1e-4
    assert start("--training.lr", "2e-4")[0].training.lr == 2e-4


def test_byte_order_mark_and_carriage_returns_are_accepted(start, paper):
    write(paper, b"\xef\xbb\xbftraining:\r\n  lr: 0.125\r\n  n_epochs: 7\r\n")
    assert start("--config", "mine.yml")[0].training == Training(lr=0.125, n_epochs=7)


def test_empty_section_has_the_defaults(start, paper):
    write(paper, "training:\nmodel: {}\n")
    assert start("--config", "mine.yml")[0] == Config()


@pytest.mark.parametrize("tag", ["a/b", "..", "", "a b", "é"])
def test_tag_that_cannot_name_a_folder_is_refused(refused, tag):
    assert "--tag" in refused("--tag", tag)


def test_dataset_name_with_path_separators_is_refused(refused):
    assert "--dataset.name" in refused("--dataset.name", "../../x")


def test_unwritable_runs_folder_is_refused(start, paper):
    (paper / "runs").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write"):
        start()


@pytest.mark.parametrize(
    "path", ["1e3", "null ", "[a, b]", "{a: b}", "é 'x' \"y\"", "yes", "- a", "@x"]
)
def test_saved_config_is_loaded_unchanged(start, paper, path):
    cfg, run = start("--dataset.path", path, "--model.parts", "[a, 'null', '3']")
    assert start("--resume", run.path)[0] == cfg
    assert run.config == {key: dict(value) for key, value in asdict(cfg).items()} | {
        "model": asdict(cfg.model) | {"parts": ["a", "null", "3"]}
    }


def test_resume_keeps_the_config(start, refused):
    cfg, run = start("--training.lr", "0.125", "--tag", "x")
    name = f"digits/{run.path.name}"
    assert start("--resume", name)[0] == cfg
    assert start("--resume", run.path, "--training.lr", "1.25e-1", "--tag", "x")[0] == cfg
    assert "cannot change training.lr to 3.0 when resuming: the run has 0.125" in refused(
        "--resume", run.path, "--training.lr", "3"
    )
    assert "cannot change tag to y" in refused("--resume", run.path, "--tag", "y")
    assert "cannot change training.lr to 0.5" in refused(
        "--resume", run.path, "--config", "digits.yml"
    )


def test_resume_refuses_a_finished_run(start, refused, capsys):
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


def test_open_run_returns_config_run_and_options(start, paper, monkeypatch):
    cfg, run = start()
    opened = open_run(paper, monkeypatch, run.path, "--input", "a b.png", "--n", "3")
    args = {"input": "a b.png", "out_dir": "here", "n": 3}
    assert (opened[0], opened[1].path, vars(opened[2])) == (cfg, run.path, args)
    assert open_run(paper, monkeypatch, f"digits/{run.path.name}")[1].path == run.path


def test_open_run_without_run_opens_the_newest(start, paper, monkeypatch):
    with pytest.raises(UserError, match="has no run yet: start one with train.py"):
        open_run(paper, monkeypatch)
    runs = [start("--tag", tag)[1] for tag in ("b", "a", "c")]
    os.utime(runs[1].path / "config.yml", (2e9, 2e9))
    assert open_run(paper, monkeypatch, "--n", "3")[1].path == runs[1].path


def test_open_run_refuses_other_folders_and_options(start, paper, monkeypatch, tmp_path):
    _, run = start()
    for argv, reason in [
        ([tmp_path], "is not a run folder"),
        (["nope"], "nope does not exist: expected a run folder"),
        ([run.path, "--inpt", "x"], "did you mean --input"),
        ([run.path, "--n", "x"], "invalid int value: 'x'"),
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


def test_user_error_is_one_line_and_exit_code_2(tmp_path):
    done = script(tmp_path, "raise UserError('a is b:\\n run c')")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: a is b: run c\n"


def test_full_disk_is_one_line_and_exit_code_2(tmp_path):
    done = script(tmp_path, "open('/dev/full', 'w', buffering=1).write('x\\n')")
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert "No space left" in done.stderr and done.stderr.count("\n") == 1


def test_other_exceptions_keep_their_traceback(tmp_path):
    done = script(tmp_path, "[][1]")
    assert done.returncode == 1 and "IndexError" in done.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_signal_is_one_line(tmp_path, name, code):
    done = script(tmp_path, f"os.kill(os.getpid(), signal.{name})")
    assert done.returncode == code
    assert done.stderr.count("\n") == 1 and name in done.stderr


def test_worker_processes_can_be_terminated(tmp_path):
    body = (
        "signal.signal(signal.SIGTERM, lambda *_: None)  # as in a training loop\n"
        "    fork = multiprocessing.get_context('fork'); up = fork.Event()\n"
        "    worker = fork.Process(target=lambda: (up.set(), signal.pause())); worker.start()\n"
        "    up.wait(); worker.terminate(); worker.join(); print(worker.exitcode)"
    )
    assert script(tmp_path, body).stdout == "-15\n"


@pytest.mark.parametrize("n", [1, 100_000])  # less and more than the buffer
def test_closed_stdout_is_not_an_error(tmp_path, n):
    done = script(tmp_path, f"sys.stdin.read(); print('x\\n' * {n})", tail="< <(:) | head -0")
    assert (done.returncode, done.stderr) == (0, "")


def test_other_broken_pipe_keeps_its_traceback(tmp_path):
    done = script(tmp_path, "raise BrokenPipeError('a worker died')")
    assert done.returncode == 1 and "a worker died" in done.stderr


def help_of(function, *argv, capsys):
    with pytest.raises(SystemExit) as stop:
        function(*argv, "--help")
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_has_every_key_with_docstring_and_default(start, capsys):
    text = help_of(start, capsys=capsys)
    assert "--training.lr FLOAT Step size, 100 % of it (default: 0.001)" in text
    assert "--dataset.name STR Dataset to train on (default: digits)" in text
    assert "--model.name {kmeans,gmm}" in text
    assert "--config FILE name of a file in configs/, or a path (default: digits.yml)" in text
    assert "--resume" in text and "--tag" in text


def test_help_of_open_run_has_run_and_options(paper, monkeypatch, capsys):
    text = help_of(open_run, paper, monkeypatch, capsys=capsys)
    assert "usage: pred.py [RUN] [options] Predict." in text
    assert "RUN run folder, a path or DATASET/MMDD_TAG (default: the newest)" in text
    assert "--input INPUT a file" in text


def test_output_folder_depends_on_input_and_out(start):
    _, run = start()
    for options, expected in (
        ({}, run.path),
        ({"input": "photos/new images/"}, run.path / "predictions_new images"),
        ({"input": "a b.png"}, run.path / "predictions_a b"),
        ({"input": "a.png", "out": "there"}, Path("there")),
        ({"out": "there"}, Path("there")),
    ):
        args = Namespace(**{"input": None, "out": None} | options)
        assert cli.output_folder(run, args) == expected


def test_new_images_are_options_of_open_run(start, paper, monkeypatch):
    _, run = start()
    monkeypatch.setattr(sys, "argv", ["pred.py", str(run.path), "--input", "photos"])
    args = cli.open_run(Config, str(paper / "pred.py"), "", **cli.NEW_IMAGES)[2]
    assert vars(args) == {"input": "photos", "out": None}


def test_open_run_refuses_an_empty_name(start, paper, monkeypatch):
    start()
    with pytest.raises(UserError, match="is not a run folder"):
        open_run(paper, monkeypatch, "")
