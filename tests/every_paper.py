"""What holds of every paper's scripts: a suite takes a class over by a subclass with its own names.

The fixtures are those of the conftest.py files, but for those that a class names.
"""

import json
import os
import pickle
import re
import shutil
import signal
import sys

import h5py
import numpy as np
import pytest

from common import UserError, cli
from tests.entry_scripts import (
    PickleBomb,
    assert_the_same,
    change_config,
    copy_of,
    one_line,
    replace,
)
from tests.image_files import N_KINDS

NO_CONFIG = [  # what a file holds, and why it is refused
    ("", "expected sections"),
    ("- a\n- b", "expected sections"),
    ("model: {width: [", "is not valid YAML"),
    ("model: {width: !!python/object/apply:os.getcwd []}", "is not valid YAML"),
]


class Environment:
    quick = ("--training.n_epochs", 1)

    @pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU 0")
    def test_an_absent_gpu_is_one_line(self, without_gpu_or_visdom):
        assert without_gpu_or_visdom.code == 0, without_gpu_or_visdom.err
        assert without_gpu_or_visdom.err.count("CUDA=0: no such GPU here, using the CPU") == 1

    def test_an_absent_monitor_is_one_warning(self, without_gpu_or_visdom):
        assert without_gpu_or_visdom.code == 0, without_gpu_or_visdom.err
        assert (
            without_gpu_or_visdom.err.count("WARNING")
            == without_gpu_or_visdom.err.count("no visdom on port")
            == 1
        )

    def test_what_stderr_says_is_the_log(self, finished_run):
        lines = finished_run[0].stderr.splitlines()
        assert [line for line in lines if not re.match(r"\d\d:\d\d:\d\d INFO ", line)] == []

    def test_what_a_run_wrote_down_is_json(self, finished_run):
        paths = [*finished_run[1].glob("*.json"), finished_run[1] / "images/captions.json"]
        assert {"meta.json", "scores.json"} <= {path.name for path in paths}
        for path in paths:
            assert json.loads(path.read_text())

    def test_nobody_reads_stdout(self, checkout):
        answer = checkout.train(*self.quick, is_read=False)
        assert answer.code == 0 and "rror" not in answer.err, answer.err


class Interrupted:
    """first, more: count that leave two checkpoints one after the other, if there are so many."""

    weights = "model.weights.h5"
    unready = "has no checkpoint yet: continue it with train.py --resume"  # for pred.py
    steps_per_kill = 1
    stops: tuple  # three count and their signals
    first: int
    more: int

    def name(self, count):
        return f"{self.steps_per_kill * count:09d}"

    def assert_the_same(self, run, finished_run):
        assert_the_same(run, finished_run[1])

    @pytest.mark.parametrize("i", range(3))
    def test_a_stopped_run_goes_on_as_if_never_stopped(self, checkout, finished_run, i):
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

    def test_a_killed_run_goes_on_from_its_last_checkpoint(self, checkout, finished_run):
        run = checkout.train(kill_at=f"{self.first}:SIGTERM").run
        kept = self.name(self.first)
        assert checkout.resume(run, kill_at=f"{self.more}:SIGKILL").code == -9
        assert [path.name for path in run.glob("checkpoints/*")] == [kept]
        assert checkout.resume(run, kill_at="save:SIGKILL").code == -9
        assert sorted(path.name for path in run.glob("checkpoints/*")) == [".tmp", kept]
        assert checkout.resume(run).code == 0, "nor is the dead process's lock a hindrance"
        self.assert_the_same(run, finished_run)

    def test_a_run_killed_before_its_first_checkpoint_begins_anew(self, checkout, finished_run):
        run = checkout.train(kill_at=f"{self.more}:SIGKILL").run
        assert self.unready in one_line(checkout.pred(run))
        assert checkout.resume(run).code == 0
        self.assert_the_same(run, finished_run)

    def test_a_cut_checkpoint_gives_way_to_the_one_before(self, checkout, finished_run):
        run = checkout.train(kill_at=f"{self.first}:SIGTERM").run
        checkout.resume(run, kill_at=f"{self.more}:SIGTERM")
        names = [self.name(self.first), self.name(self.first + self.more)]
        assert sorted(path.name for path in run.glob("checkpoints/*")) == names
        os.truncate(run / "checkpoints" / names[1] / self.weights, 1000)
        resumed = checkout.resume(run)
        assert resumed.code == 0 and f"{names[1]} is damaged" in resumed.err
        self.assert_the_same(run, finished_run)


class Configs:
    """config: the paper's class; the fixture wrong gives pairs of a file's text and the reason."""

    config: type

    def test_a_wrong_config_is_refused_with_the_key(self, checkout, monkeypatch, tmp_path, wrong):
        text, reason = wrong
        (tmp_path / "mine.yml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["train.py", "--config", str(tmp_path / "mine.yml")])
        before = checkout.runs()
        with pytest.raises(UserError) as error:
            cli.start(self.config, str(checkout.paper / "train.py"))
        assert reason in str(error.value) and checkout.runs() == before

    def test_an_absent_config_is_one_line_that_names_those_there_are(self, checkout):
        answer = checkout(f"{checkout.paper.name}/train.py", "--config", "mist.yml")
        assert "no config mist.yml" in one_line(answer)
        names = [path.name for path in checkout.paper.glob("configs/*.yml")]
        assert [name for name in names if name not in answer.err] == []


class Folders:
    """of(folder): words for a short training on it; of_one_size: more for images of any size.

    n: how many images the fixture folder has.
    """

    n = 6
    of_one_size = ("--dataset.size", 16)

    def assert_scored(self, scores, n):
        assert scores["n"] == n

    def test_a_missing_and_an_empty_folder_are_refused(self, refused, tmp_path):
        assert "does not exist" in refused(*self.of(tmp_path / "nowhere"))
        (tmp_path / "empty").mkdir()
        assert "contains no images" in refused(*self.of(tmp_path / "empty"))

    def test_bad_images_are_skipped_named_and_counted(self, checkout, damaged):
        answer = checkout.train(*self.of(damaged), "--dataset.max_bad", 0.4)
        assert answer.code == 0, answer.err
        log = (answer.run / "train.log").read_text()
        for name in ("cut.jpg", "text.png", "zero.png"):
            assert re.search(f"{name}'?: ", answer.err) and name in log
        assert f"3 of {self.n + 3} images cannot be read" in log
        self.assert_scored(checkout.score(answer.run), self.n)

    def test_too_many_bad_images_are_refused(self, refused, damaged):
        reason = f"3 of {self.n + 3} images cannot be read, more than dataset.max_bad 0.01"
        assert reason in refused(*self.of(damaged))

    def test_images_of_all_modes_sizes_and_names_train_together(self, checkout, all_kinds):
        answer = checkout.train(*self.of(all_kinds), *self.of_one_size)
        assert answer.code == 0, answer.err
        self.assert_scored(checkout.score(answer.run), N_KINDS)

    def test_images_that_changed_since_the_run_began_are_refused(self, checkout, folder):
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


class Predictions:
    """predictions: the file that evaluate.py reads."""

    predictions = "predictions.npz"

    def assert_refused(self, answer):
        assert f"no readable {self.predictions}: run pred.py on it first" in one_line(answer)

    def test_an_output_that_cannot_be_written_is_refused(self, checkout, finished_run, tmp_path):
        (tmp_path / "file").write_text("")
        answer = checkout.pred(finished_run[1], "--out", tmp_path / "file" / "below")
        assert "cannot write" in one_line(answer)

    def test_new_images_that_are_absent_are_one_line(self, checkout, finished_run, tmp_path):
        answer = checkout.pred(finished_run[1], "--input", tmp_path / "nowhere")
        assert "nowhere does not exist" in one_line(answer)
        assert not list(finished_run[1].glob("predictions_nowhere"))

    def test_evaluate_before_pred_is_one_line(self, checkout, finished_run, tmp_path):
        run = copy_of(finished_run[1], tmp_path)
        path, scores = run / self.predictions, (run / "scores.json").read_bytes()
        for content in (path.read_bytes()[:70], b"a,b\n1,2\n"):  # a table is cut in its first row
            path.write_bytes(content)
            self.assert_refused(checkout.evaluate(run))
        path.unlink()
        self.assert_refused(checkout.evaluate(run))
        assert (run / "scores.json").read_bytes() == scores

    def test_a_pickle_in_the_predictions_is_refused_and_not_executed(
        self, checkout, finished_run, tmp_path
    ):
        run, bomb = copy_of(finished_run[1], tmp_path), PickleBomb(tmp_path / "harm")
        (run / self.predictions).write_bytes(pickle.dumps(bomb))
        self.assert_refused(checkout.evaluate(run))
        if self.predictions.endswith(".npz"):
            np.savez(run / self.predictions, clusters=np.array([bomb], dtype=object))
            self.assert_refused(checkout.evaluate(run))
        assert not bomb.path.exists()


class Damaged:
    """The fixture change gives what to change in the config of `stopped`: old, new, difference.

    option: a key and its value in the tiny config; others: arrays that are not its weights.
    """

    weights, state = "model.weights.h5", "state.h5"
    option = ("--model.n_clusters", 4)
    others = {"a": np.zeros(3)}

    def new_images(self, tmp_path):
        """Words that make pred.py read the weights."""
        return ()

    @pytest.mark.parametrize("kind", ["weights", "state"])
    def test_a_pickle_in_the_place_of_a_checkpoint_is_refused_and_not_executed(
        self, checkout, stopped, tmp_path, kind
    ):
        run, bomb, name = (
            copy_of(stopped, tmp_path),
            PickleBomb(tmp_path / "harm"),
            getattr(self, kind),
        )
        replace(run, name, pickle.dumps(bomb))
        answers = [checkout.resume(run)]
        if kind == "weights":
            answers.append(checkout.pred(run, *self.new_images(tmp_path)))
        for answer in answers:
            assert f"{name} is not a readable checkpoint" in one_line(answer)
        assert not bomb.path.exists()

    def test_no_intact_checkpoint_is_refused_by_name(self, checkout, stopped, tmp_path):
        run = copy_of(stopped, tmp_path)
        folders = list(run.glob("checkpoints/0*"))  # one, or more where a step took half a minute
        for folder in folders:
            os.truncate(folder / self.state, 1000)
        for answer in (checkout.resume(run), checkout.pred(run, *self.new_images(tmp_path))):
            assert "no intact checkpoint" in one_line(answer)
            assert folders and all(folder.name in answer.err for folder in folders)

    def test_a_checkpoint_of_another_model_is_refused_with_the_difference(
        self, checkout, stopped, tmp_path, change
    ):
        run, (found, other, difference) = copy_of(stopped, tmp_path), change
        change_config(run, found, other)
        kept = sorted(run.glob("checkpoints/*"))
        for answer in (checkout.resume(run), checkout.pred(run, *self.new_images(tmp_path))):
            assert "is of another model: " in one_line(answer) and difference in answer.err
        assert sorted(run.glob("checkpoints/*")) == kept

    def test_a_file_of_weights_of_something_else_is_refused(self, checkout, stopped, tmp_path):
        run, path = copy_of(stopped, tmp_path), tmp_path / self.weights
        if path.suffix == ".h5":
            with h5py.File(path, "w") as file:
                for name, values in self.others.items():
                    file[name] = values
        else:
            from safetensors.numpy import save_file

            save_file(self.others, path)
        replace(run, self.weights, path.read_bytes())
        for answer in (checkout.resume(run), checkout.pred(run, *self.new_images(tmp_path))):
            assert "a is (3,), the config expects absent" in one_line(answer)

    def test_a_finished_run_and_other_options_are_refused_by_resume(
        self, checkout, finished_run, stopped
    ):
        assert "already finished" in one_line(checkout.resume(finished_run[1]))
        key, value = self.option
        answer = checkout(f"{checkout.paper.name}/train.py", "--resume", stopped, key, 5)
        reason = f"cannot change {key[2:]} to 5 when resuming: the run has {value}"
        assert reason in one_line(answer)
