"""Tests that every paper's scripts pass. A suite subclasses a class and sets its attributes.

Fixtures come from the conftest.py files, except those that a docstring asks the subclass for.
"""

import json
import os
import pickle
import re
import shutil
import signal
import sys
import warnings

import h5py
import numpy as np
import pytest

from common import UserError, cli
from tests.entry_scripts import (
    PickleBomb,
    assert_the_same,
    change_config,
    copy_of,
    is_command,
    one_line,
    replace,
    undocumented,
)
from tests.image_files import N_KINDS, write

NO_CONFIG = [  # content of a config file, and part of its error message
    ("", "expected sections"),
    ("- a\n- b", "expected sections"),
    ("model: {width: [", "is not valid YAML"),
    ("model: {width: !!python/object/apply:os.getcwd []}", "is not valid YAML"),
]


def warnings_of(function):
    """The messages of the Python warnings that a function causes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(warning.message) for warning in caught]


def noise_images(n, n_distinct, *shape):
    """n images uint8 of which n_distinct differ, in turn."""
    images = np.random.default_rng(0).integers(0, 256, (n_distinct, *shape), np.uint8)
    return np.resize(images, (n, *shape))


class Environment:
    """quick: options for a short training."""

    quick = ("--training.n_epochs", 1)

    @pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU 0")
    def test_missing_gpu_is_logged_once(self, without_gpu_or_visdom):
        result = without_gpu_or_visdom
        assert result.code == 0, result.err
        assert result.err.count("CUDA=0: no such GPU here, using the CPU") == 1

    def test_missing_visdom_is_warned_about_once(self, without_gpu_or_visdom):
        result = without_gpu_or_visdom
        assert result.code == 0, result.err
        assert result.err.count("WARNING") == result.err.count("no visdom on port") == 1

    def test_stderr_has_log_lines_only(self, finished_run):
        lines = finished_run[0].stderr.splitlines()
        assert [line for line in lines if not re.match(r"\d\d:\d\d:\d\d INFO ", line)] == []

    def test_json_files_are_valid(self, finished_run):
        paths = [*finished_run[1].glob("*.json"), finished_run[1] / "images/captions.json"]
        assert {"meta.json", "scores.json"} <= {path.name for path in paths}
        for path in paths:
            assert json.loads(path.read_text())

    def test_closed_stdout_is_no_error(self, checkout):
        result = checkout.train(*self.quick, close_stdout=True)
        assert result.code == 0 and "rror" not in result.err, result.err


class Interrupted:
    """stops: three steps and the signals sent there; first, more: numbers of steps.

    Stopped after `first` steps and, resumed, after `more`, a run has two checkpoints.
    """

    weights = "model.weights.h5"
    unready = "has no checkpoint yet: continue it with train.py --resume"  # error of pred.py
    steps_per_kill = 1  # steps of the run for one step that kill_at counts
    stops: tuple
    first: int
    more: int

    def name(self, count):
        return f"{self.steps_per_kill * count:09d}"

    def assert_the_same(self, run, finished_run):
        assert_the_same(run, finished_run[1])

    @pytest.mark.parametrize("i", range(3))
    def test_stopped_run_resumes_exactly(self, checkout, finished_run, i):
        count, name = self.stops[i]
        stopped = checkout.train(kill_at=f"{count}:{name}")
        run = stopped.run
        assert (stopped.code, stopped.out) == (128 + signal.Signals[name], ""), stopped.err
        assert "--resume" in stopped.err
        assert json.loads((run / "meta.json").read_text())["status"] == "stopped"
        assert [path.name for path in run.glob("checkpoints/*")] == [self.name(count)]
        resumed = checkout.resume(run)
        assert (resumed.code, resumed.out) == (0, f"{run}\n"), resumed.err
        self.assert_the_same(run, finished_run)

    def test_killed_run_resumes_from_its_last_checkpoint(self, checkout, finished_run):
        run = checkout.train(kill_at=f"{self.first}:SIGTERM").run
        kept = self.name(self.first)
        assert checkout.resume(run, kill_at=f"{self.more}:SIGKILL").code == -9
        assert [path.name for path in run.glob("checkpoints/*")] == [kept]
        assert checkout.resume(run, kill_at="save:SIGKILL").code == -9
        assert sorted(path.name for path in run.glob("checkpoints/*")) == [".tmp", kept]
        assert checkout.resume(run).code == 0, "the lock of a dead process is ignored"
        self.assert_the_same(run, finished_run)

    def test_run_without_checkpoint_restarts(self, checkout, finished_run):
        run = checkout.train(kill_at=f"{self.more}:SIGKILL").run
        assert self.unready in one_line(checkout.pred(run))
        assert checkout.resume(run).code == 0
        self.assert_the_same(run, finished_run)

    def test_truncated_checkpoint_falls_back_to_the_previous(self, checkout, finished_run):
        run = checkout.train(kill_at=f"{self.first}:SIGTERM").run
        checkout.resume(run, kill_at=f"{self.more}:SIGTERM")
        names = [self.name(self.first), self.name(self.first + self.more)]
        assert sorted(path.name for path in run.glob("checkpoints/*")) == names
        os.truncate(run / "checkpoints" / names[1] / self.weights, 1000)
        resumed = checkout.resume(run)
        assert resumed.code == 0 and f"{names[1]} is damaged" in resumed.err
        self.assert_the_same(run, finished_run)


class Configs:
    """config: the config class; fixture `bad_config`: a config file and part of its error."""

    config: type

    def test_bad_config_error_names_the_key(self, checkout, monkeypatch, tmp_path, bad_config):
        text, message = bad_config
        (tmp_path / "mine.yml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["train.py", "--config", str(tmp_path / "mine.yml")])
        before = checkout.runs()
        with pytest.raises(UserError) as error:
            cli.start(self.config, str(checkout.paper / "train.py"))
        assert message in str(error.value) and checkout.runs() == before

    def test_missing_config_error_lists_the_configs(self, checkout):
        result = checkout(f"{checkout.paper.name}/train.py", "--config", "mist.yml")
        assert "no config mist.yml" in one_line(result)
        names = [path.name for path in checkout.paper.glob("configs/*.yml")]
        assert [name for name in names if name not in result.err] == []

    def test_every_option_has_help_and_default(self, checkout):
        missing = []
        for path in sorted(checkout.paper.rglob("*.py")):
            needs_gpu = path.stem.endswith("_cuda")  # the options of train.py and pred.py
            if is_command(path.read_text()) and not needs_gpu:
                name = ".".join(path.relative_to(checkout.path).with_suffix("").parts)
                result = checkout(name, "--help", COLUMNS="1000")
                assert result.code == 0, result.err
                missing += [f"{name} {option}" for option in undocumented(result.out)]
        assert not missing, "\n".join(missing)


class Folders:
    """of(folder): options for a short training on it; of_one_size: more, for images of any size.

    n: number of images in the fixture `folder`.
    """

    n = 6
    of_one_size = ("--dataset.size", 16)

    def assert_scored(self, scores, n):
        assert scores["n"] == n

    def test_missing_or_empty_folder_is_refused(self, refused, tmp_path):
        assert "does not exist" in refused(*self.of(tmp_path / "nowhere"))
        (tmp_path / "empty").mkdir()
        assert "contains no images" in refused(*self.of(tmp_path / "empty"))

    def test_bad_images_are_skipped_and_listed(self, checkout, damaged):
        result = checkout.train(*self.of(damaged), "--dataset.max_bad", 0.4)
        assert result.code == 0, result.err
        log = (result.run / "train.log").read_text()
        for name in ("cut.jpg", "text.png", "zero.png"):
            assert re.search(f"{name}'?: ", result.err) and name in log
        assert f"3 of {self.n + 3} images cannot be read" in log
        self.assert_scored(checkout.score(result.run), self.n)

    def test_too_many_bad_images_are_refused(self, refused, damaged):
        message = f"3 of {self.n + 3} images cannot be read, more than dataset.max_bad 0.01"
        assert message in refused(*self.of(damaged))

    def test_images_of_all_kinds_train_together(self, checkout, all_kinds):
        result = checkout.train(*self.of(all_kinds), *self.of_one_size)
        assert result.code == 0, result.err
        assert result.err.count("1 image file is not read: 1 .nef") == 1
        self.assert_scored(checkout.score(result.run), N_KINDS)

    def test_changed_images_are_refused(self, checkout, folder):
        run = checkout.train(*self.of(folder), kill_at="1:SIGTERM").run
        path, another = sorted(folder.rglob("*.png"))[:2]
        shutil.copy(path, path.with_name("new.png"))
        assert "changed since training" in one_line(checkout.resume(run))
        assert "pass these images with --input" in one_line(checkout.pred(run))
        path.with_name("new.png").unlink()
        content = path.read_bytes()
        shutil.copy(another, path)
        assert "changed since training" in one_line(checkout.resume(run))
        path.write_bytes(content)
        resumed = checkout.resume(run)
        assert resumed.code == 0, resumed.err


class DistinctImages:
    """quick: options for a short training; with_clusters: those that ask for five clusters."""

    quick = ("--training.n_epochs", 1)
    with_clusters: tuple

    @pytest.mark.parametrize("n_distinct", [1, 3, 30])
    def test_few_distinct_images_are_warned_about_once(self, checkout, tmp_path, n_distinct):
        for i in range(60):
            write(tmp_path / f"photos/{'ab'[i % 2]}/{i:02}.png", seed=i % n_distinct)
        options = "--dataset.name", "folder", "--dataset.path", tmp_path / "photos"
        training = checkout.train(*options, *self.with_clusters, *self.quick)
        results = [training, checkout.pred(training.run), checkout.evaluate(training.run)]
        assert [result.code for result in results] == [0, 0, 0], training.err
        stderr = "".join(result.err for result in results)
        n_expected = len(re.findall("images are (equal|distinct)", stderr))
        assert n_expected == stderr.lower().count("warning") == (n_distinct < 5), stderr


class Predictions:
    """predictions: name of the file that evaluate.py reads."""

    predictions = "predictions.npz"

    def assert_refused(self, result):
        assert f"no readable {self.predictions}: run pred.py on it first" in one_line(result)

    def test_unwritable_output_is_one_line(self, checkout, finished_run, tmp_path):
        (tmp_path / "file").write_text("")
        result = checkout.pred(finished_run[1], "--out", tmp_path / "file" / "below")
        assert "cannot write" in one_line(result)

    def test_missing_input_is_one_line(self, checkout, finished_run, tmp_path):
        result = checkout.pred(finished_run[1], "--input", tmp_path / "nowhere")
        assert "nowhere does not exist" in one_line(result)
        assert not list(finished_run[1].glob("predictions_nowhere"))

    def test_evaluate_without_predictions_is_one_line(self, checkout, finished_run, tmp_path):
        run = copy_of(finished_run[1], tmp_path)
        path, scores = run / self.predictions, (run / "scores.json").read_bytes()
        for content in (path.read_bytes()[:70], b"a,b\n1,2\n"):  # truncated, then another table
            path.write_bytes(content)
            self.assert_refused(checkout.evaluate(run))
        path.unlink()
        self.assert_refused(checkout.evaluate(run))
        assert (run / "scores.json").read_bytes() == scores

    def test_pickled_predictions_are_not_loaded(self, checkout, finished_run, tmp_path):
        run, bomb = copy_of(finished_run[1], tmp_path), PickleBomb(tmp_path / "created")
        (run / self.predictions).write_bytes(pickle.dumps(bomb))
        self.assert_refused(checkout.evaluate(run))
        if self.predictions.endswith(".npz"):
            np.savez(run / self.predictions, clusters=np.array([bomb], dtype=object))
            self.assert_refused(checkout.evaluate(run))
        assert not bomb.path.exists()


class Damaged:
    """option: a key and its value in the tiny config; others: arrays that are not its weights.

    The fixture `change`: old and new text in the config of `stopped_run`, and part of the error.
    """

    weights, state = "model.weights.h5", "state.h5"
    option = ("--model.n_clusters", 4)
    others = {"a": np.zeros(3)}

    def new_images(self, tmp_path):
        """Options that make pred.py load the weights."""
        return ()

    @pytest.mark.parametrize("kind", ["weights", "state"])
    def test_pickled_checkpoint_is_not_loaded(self, checkout, stopped_run, tmp_path, kind):
        run, bomb, name = (
            copy_of(stopped_run, tmp_path),
            PickleBomb(tmp_path / "created"),
            getattr(self, kind),
        )
        replace(run, name, pickle.dumps(bomb))
        results = [checkout.resume(run)]
        if kind == "weights":
            results.append(checkout.pred(run, *self.new_images(tmp_path)))
        for result in results:
            assert f"{name} is not a readable checkpoint" in one_line(result)
        assert not bomb.path.exists()

    def test_all_checkpoints_damaged_is_one_line(self, checkout, stopped_run, tmp_path):
        run = copy_of(stopped_run, tmp_path)
        folders = list(run.glob("checkpoints/0*"))  # more than one if a step took 30 s
        for folder in folders:
            os.truncate(folder / self.state, 1000)
        for result in (checkout.resume(run), checkout.pred(run, *self.new_images(tmp_path))):
            assert "no intact checkpoint" in one_line(result)
            assert folders and all(folder.name in result.err for folder in folders)

    def test_other_model_error_names_the_difference(self, checkout, stopped_run, tmp_path, change):
        run, (old, new, difference) = copy_of(stopped_run, tmp_path), change
        change_config(run, old, new)
        kept = sorted(run.glob("checkpoints/*"))
        for result in (checkout.resume(run), checkout.pred(run, *self.new_images(tmp_path))):
            assert "is of another model: " in one_line(result) and difference in result.err
        assert sorted(run.glob("checkpoints/*")) == kept

    def test_weights_of_other_arrays_are_refused(self, checkout, stopped_run, tmp_path):
        run, path = copy_of(stopped_run, tmp_path), tmp_path / self.weights
        if path.suffix == ".h5":
            with h5py.File(path, "w") as file:
                for name, values in self.others.items():
                    file[name] = values
        else:
            from safetensors.numpy import save_file

            save_file(self.others, path)
        replace(run, self.weights, path.read_bytes())
        for result in (checkout.resume(run), checkout.pred(run, *self.new_images(tmp_path))):
            assert "a is (3,), the config expects absent" in one_line(result)

    def test_resume_refuses_finished_runs_and_new_options(
        self, checkout, finished_run, stopped_run
    ):
        assert "already finished" in one_line(checkout.resume(finished_run[1]))
        key, value = self.option
        result = checkout(f"{checkout.paper.name}/train.py", "--resume", stopped_run, key, 5)
        message = f"cannot change {key[2:]} to 5 when resuming: the run has {value}"
        assert message in one_line(result)
