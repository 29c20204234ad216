"""The loop of every training here: steps, the means of what they say, checkpoints."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common import UserError
from common.run import Run
from unsup_seg_torch import checkpoint

SECONDS_BETWEEN_CHECKPOINTS = 30.0
STEPS_BETWEEN_LOGS = 10

Values = dict[str, float]


class State(Protocol):
    """What a training is at one moment, as far as the loop is concerned."""

    optimizers: dict[str, torch.optim.Optimizer]
    sums: dict[str, Tensor]  # of what the steps say, since they were last logged
    epoch: int
    batch: int  # batches of this epoch that are done
    step: int


def note(run: Run, checksum: str, **facts: object) -> None:
    """Writes down what the run is about; raises UserError where its data have changed since."""
    if run.meta.get("dataset_checksum", checksum) != checksum:
        raise UserError("the data are not what they were when the run began: start anew")
    run.note(dataset_checksum=checksum, **facts)


def resume(run: Run, state: State, module: nn.Module) -> bool:
    """Fills state and module from the run's last checkpoint; whether there was one."""
    state.step, progress = checkpoint.resume(run, module, state.optimizers, state.sums)
    state.epoch, state.batch = progress.get("epoch", 0), progress.get("batch", 0)
    return state.step > 0


def epoch(
    state: State,
    batches: Iterable[Any],
    step: Callable[[Any], tuple[int, float, dict[str, Tensor]]],
    n_batches: int,
    n_steps: int,
    seed: int,
) -> Iterator[Values | None]:
    """The steps of an epoch from state.batch on; yields after each, now and then the means.

    step: takes a batch and says of how many images it was, the learning rate, and what is added to
    the sums. Its chance depends on seed and number alone, so that it is the same after a stop.
    """
    began, n_done = time.perf_counter(), 0
    for batch in batches:
        torch.manual_seed(seed * 1_000_003 + state.step)
        n_images, rate, found = step(batch)
        for name, value in found.items():
            state.sums[name] += value
        state.step += 1
        state.batch += 1
        n_done += n_images
        values = None
        if state.step % STEPS_BETWEEN_LOGS == 0 or state.step == n_steps:
            n = (state.step - 1) % STEPS_BETWEEN_LOGS + 1
            values = {name: float(total) / n for name, total in state.sums.items()}
            values |= {"lr": rate, "images_per_second": n_done / (time.perf_counter() - began)}
            for total in state.sums.values():
                total.zero_()
            began, n_done = time.perf_counter(), 0
        if state.batch == n_batches:
            state.epoch, state.batch = state.epoch + 1, 0
        yield values


def train(
    run: Run,
    state: State,
    n_epochs: int,
    steps: Callable[[], Iterator[Values | None]],
    save: Callable[[Run, Any], None],
    after: Callable[[Values | None], None] = lambda values: None,
) -> None:
    """Epochs of steps up to n_epochs, logged; saves at the end, at a stop, and now and then.

    after: what else is done after each step, of which it gets what `steps` has said.
    """
    saved = time.monotonic()
    for _ in run.epochs(state.epoch, n_epochs):
        for values in steps():
            if values:
                run.log("train", state.step, epoch=state.epoch, **values)
            after(values)
            if run.stopping:
                save(run, state)
                run.stop()
        is_last = state.epoch == n_epochs
        if is_last or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            save(run, state)
            saved = time.monotonic()


def write_curves(run: Run, names: list[str]) -> None:
    """What the steps have said, each by itself over the steps, as images/losses.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    figure, axes = pyplot.subplots(
        len(names), 1, figsize=(7, 1 + 2 * len(names)), sharex=True, layout="constrained"
    )
    for axis, name in zip(axes, names, strict=True):
        axis.plot([line["step"] for line in lines], [line[name] for line in lines])
        axis.set_ylabel(name.replace("_", " "))
        if name == "reconstruction":  # W-Net's falls by orders of magnitude
            axis.set_yscale("log")
    axes[-1].set_xlabel("step")
    figure.savefig(run.images / "losses.png", dpi=100)
    pyplot.close(figure)
