"""What holds of every paper's scripts: a suite takes a class over by a subclass with its own names.

The fixtures checkout, whole, stopped and without are those of the conftest.py files.
"""

import json
import os
import pickle
import re
import signal

import pytest

from tests.entry_scripts import Harm, assert_the_same, copy_of, one_line, replace


class Machine:
    quick = ("--training.n_epochs", 1)

    @pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU 0")
    def test_an_absent_gpu_is_one_line(self, without):
        assert without.code == 0, without.err
        assert without.err.count("CUDA=0: no such GPU here, going on with the CPU") == 1

    def test_an_absent_monitor_is_one_warning(self, without):
        assert without.code == 0, without.err
        assert without.err.count("WARNING") == without.err.count("no visdom on port") == 1

    def test_what_stderr_says_is_the_log(self, whole):
        lines = whole[0].stderr.splitlines()
        assert [line for line in lines if not re.match(r"\d\d:\d\d:\d\d INFO ", line)] == []

    def test_nobody_reads_stdout(self, checkout):
        answer = checkout.train(*self.quick, is_read=False)
        assert answer.code == 0 and "rror" not in answer.err, answer.err


class Interrupted:
    """first, more: strikes that leave two checkpoints one after the other, if there are so many."""

    weights = "model.weights.h5"
    unready = "has no checkpoint yet: train.py --resume"  # for pred.py
    steps_a_strike = 1
    stops: tuple  # three strikes and their signals
    first: int
    more: int

    def name(self, strikes):
        return f"{self.steps_a_strike * strikes:09d}"

    def assert_the_same(self, run, whole):
        assert_the_same(run, whole[1])

    @pytest.mark.parametrize("i", range(3))
    def test_a_stopped_run_goes_on_as_if_never_stopped(self, checkout, whole, i):
        strikes, name = self.stops[i]
        stopped = checkout.train(strike=f"{strikes}:{name}")
        run = stopped.run
        assert (stopped.code, stopped.out) == (128 + signal.Signals[name], ""), stopped.err
        assert "--resume" in stopped.err
        assert json.loads((run / "meta.json").read_text())["status"] == "stopped"
        assert [path.name for path in run.glob("checkpoints/*")] == [self.name(strikes)]
        resumed = checkout.resume(run)
        assert (resumed.code, resumed.out) == (0, f"{run}\n"), resumed.err
        self.assert_the_same(run, whole)

    def test_a_killed_run_goes_on_from_its_last_checkpoint(self, checkout, whole):
        run = checkout.train(strike=f"{self.first}:SIGTERM").run
        kept = self.name(self.first)
        assert checkout.resume(run, strike=f"{self.more}:SIGKILL").code == -9
        assert [path.name for path in run.glob("checkpoints/*")] == [kept]
        assert checkout.resume(run, strike="save:SIGKILL").code == -9
        assert sorted(path.name for path in run.glob("checkpoints/*")) == [".tmp", kept]
        assert checkout.resume(run).code == 0, "nor is the dead process's lock a hindrance"
        self.assert_the_same(run, whole)

    def test_a_run_killed_before_its_first_checkpoint_begins_anew(self, checkout, whole):
        run = checkout.train(strike=f"{self.more}:SIGKILL").run
        assert self.unready in one_line(checkout.pred(run))
        assert checkout.resume(run).code == 0
        self.assert_the_same(run, whole)

    def test_a_cut_checkpoint_gives_way_to_the_one_before(self, checkout, whole):
        run = checkout.train(strike=f"{self.first}:SIGTERM").run
        checkout.resume(run, strike=f"{self.more}:SIGTERM")
        names = [self.name(self.first), self.name(self.first + self.more)]
        assert sorted(path.name for path in run.glob("checkpoints/*")) == names
        os.truncate(run / "checkpoints" / names[1] / self.weights, 1000)
        resumed = checkout.resume(run)
        assert resumed.code == 0 and f"{names[1]} is damaged" in resumed.err
        self.assert_the_same(run, whole)


class Damaged:
    weights, state = "model.weights.h5", "state.h5"

    def new_images(self, tmp_path):
        """Words that make pred.py read the weights."""
        return ()

    @pytest.mark.parametrize("kind", ["weights", "state"])
    def test_a_pickle_in_the_place_of_a_checkpoint_is_refused_and_not_executed(
        self, checkout, stopped, tmp_path, kind
    ):
        run, harm, name = copy_of(stopped, tmp_path), Harm(tmp_path / "harm"), getattr(self, kind)
        replace(run, name, pickle.dumps(harm))
        answers = [checkout.resume(run)]
        if kind == "weights":
            answers.append(checkout.pred(run, *self.new_images(tmp_path)))
        for answer in answers:
            assert f"{name} is no readable checkpoint" in one_line(answer)
        assert not harm.path.exists()

    def test_no_intact_checkpoint_is_refused_by_name(self, checkout, stopped, tmp_path):
        run = copy_of(stopped, tmp_path)
        (folder,) = run.glob("checkpoints/0*")
        os.truncate(folder / self.state, 1000)
        for answer in (checkout.resume(run), checkout.pred(run, *self.new_images(tmp_path))):
            assert "no intact checkpoint" in one_line(answer) and folder.name in answer.err
