"""Trains W-Net, Segmenter or DINO: python unsup_seg_torch/train.py --config cpu.yml

Inside the folder also: python -m train --model=segmenter --batch-size=16 --epochs=30
W-Net's loop is here, those of the other two in segmenter/train.py and dino/train.py.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import importlib
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from common import UserError, cli, memory
from common.run import Run
from unsup_seg_torch import checkpoint, config, data, flags, loss, pictures, wnet

log = logging.getLogger("unsup_seg_torch.train")

SECONDS_BETWEEN_CHECKPOINTS = 30.0
STEPS_BETWEEN_LOGS = 10


@dataclass
class State:
    """All that a training is at one moment: what a checkpoint holds."""

    net: wnet.WNet
    optimizers: dict[str, torch.optim.Optimizer]
    sums: dict[str, Tensor]  # of both losses since they were last logged
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0


def main() -> None:
    sys.argv[1:] = flags.translate(sys.argv[1:])
    cfg, run = cli.start(config.CONFIGS, __file__, config.DEFAULTS)
    with run:
        if cfg.model.name == "wnet":
            run_training(cfg, run, device())
        else:  # each loads what it alone needs
            module = importlib.import_module(f"unsup_seg_torch.{cfg.model.name}.train")
            module.run_training(cfg, run, device())


def run_training(cfg: config.Config, run: Run, where: torch.device) -> None:
    """From pictures to W-Net's weights in the run folder. Raises UserError."""
    found = data.Pictures(cfg.dataset)
    if run.meta.get("dataset_checksum", found.checksum) != found.checksum:
        raise UserError("the pictures are not what they were when the run began: start anew")
    run.note(dataset_checksum=found.checksum, device=str(where), pictures=len(found))
    state = begin(cfg, where)
    state.step, progress = checkpoint.resume(run, state.net, state.optimizers, state.sums)
    state.epoch, state.batch = progress.get("epoch", 0), progress.get("batch", 0)
    if state.step == 0:
        start_weights(cfg.model, state.net)
        pictures.write_baseline(run, found)
    train(cfg, run, state, found)
    if cfg.training.save_model:
        pictures.export(run)
    if cfg.training.save_logs:
        pictures.write_curves(run)


def device() -> torch.device:
    """The first visible GPU, else the CPU, with one line where CUDA_VISIBLE_DEVICES is set."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("CUDA_VISIBLE_DEVICES", "") not in ("", "-1"):
        name = os.environ["CUDA_VISIBLE_DEVICES"]
        log.info("CUDA=%s: no such GPU here, going on with the CPU", name)
    return torch.device("cpu")


def begin(cfg: config.Config, where: torch.device) -> State:
    """The state before the first step."""
    memory.keep_freed()
    torch.manual_seed(cfg.training.seed)
    # maps of few channels are faster side by side
    layout = torch.channels_last if cfg.model.width < 32 else torch.contiguous_format
    net = wnet.build(cfg.model).to(where, memory_format=layout)
    everything = list(net.parameters())
    trained = {"joint": everything}
    if cfg.training.mode == "alternating":
        trained = {"cut": list(net.encoder.parameters()), "reconstruction": everything}
    optimizers = {name: optimizer(cfg.training, parameters) for name, parameters in trained.items()}
    sums = {name: torch.zeros((), device=where) for name in ("soft_ncut", "reconstruction")}
    return State(net, optimizers, sums)


def optimizer(training: config.Training, parameters: list[Tensor]) -> torch.optim.Optimizer:
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, training.lr, training.momentum)
    return torch.optim.Adam(parameters, training.lr, fused=True)


def start_weights(cfg: config.Model, net: wnet.WNet) -> None:
    """Fills a net with those that the config names; says so where there are none."""
    if cfg.weights:
        checkpoint.load(net, Path(cfg.weights))
        log.info("weights of %s", cfg.weights)
    elif cfg.pretrained:
        log.warning(
            "there are no pretrained weights of a W-Net to fetch: starting from random ones; "
            "--model.weights FILE gives the model.safetensors of another run"
        )


def train(cfg: config.Config, run: Run, state: State, found: data.Pictures) -> None:
    """The loop: every epoch some crops of every picture."""
    saved = time.monotonic()
    for _ in run.epochs(state.epoch, cfg.training.n_epochs):
        for values in train_epoch(cfg, state, found.images):
            if values:
                run.log("train", state.step, epoch=state.epoch, **values)
            if state.batch == 0:  # the epoch is over
                pictures.snapshot(run, cfg, state.net, found, state.epoch)
            if run.stopping:
                save(run, state)
                run.stop()
        is_last = state.epoch == cfg.training.n_epochs
        if is_last or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            save(run, state)
            saved = time.monotonic()


def train_epoch(
    cfg: config.Config, state: State, images: list
) -> Iterator[dict[str, float] | None]:
    """Trains from state.batch on; yields after each step: now and then the losses since the last.

    images: uint8 (h, w, 3) each.
    """
    state.net.train()
    n_batches = data.n_batches(cfg, len(images))
    n_steps = n_batches * cfg.training.n_epochs
    began, n_done = time.perf_counter(), 0
    for batch in data.batches(images, cfg, state.epoch, state.batch):
        rate = learning_rate(cfg.training, state.step, n_steps)
        batch = batch.to(next(state.net.parameters()).device)
        torch.manual_seed(cfg.training.seed * 1_000_003 + state.step)  # dropout, as after a stop
        for name, value in train_step(cfg, state, batch, rate).items():
            state.sums[name] += value
        state.step += 1
        state.batch += 1
        n_done += len(batch)
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


def train_step(cfg: config.Config, state: State, images: Tensor, rate: float) -> dict[str, Tensor]:
    """Images (b, 3, h, w) -> both losses before they are updated.

    The paper's algorithm 1: the encoder goes down the cut, then both halves down the error of
    reconstruction. Joint: both go down a sum of the two, at half the cost.
    """
    for each in state.optimizers.values():
        each.param_groups[0]["lr"] = rate
    net, model = state.net, cfg.model
    probabilities = net.encode(images)
    cut = loss.soft_ncut(
        probabilities, images, model.radius, model.sigma_intensity, model.sigma_position
    ).mean()
    if cfg.training.mode == "joint":
        error = loss.reconstruction(net.decode(probabilities), images)
        update(state.optimizers["joint"], cut + cfg.training.reconstruction * error)
    else:
        update(state.optimizers["cut"], cut)
        error = loss.reconstruction(net(images)[1], images)
        update(state.optimizers["reconstruction"], error)
    return {"soft_ncut": cut.detach(), "reconstruction": error.detach()}


def update(optimizer: torch.optim.Optimizer, value: Tensor) -> None:
    optimizer.zero_grad()
    value.backward()
    optimizer.step()


def learning_rate(training: config.Training, step: int, n_steps: int) -> float:
    """Before a step, counted from 0: a tenth every `drop_every` steps, and a cosine to 0."""
    rate = training.lr
    if training.drop_every:
        rate *= 0.1 ** (step // training.drop_every)
    if training.cosine:
        rate *= 0.5 * (1 + math.cos(math.pi * step / n_steps))
    return rate


def save(run: Run, state: State) -> None:
    checkpoint.save(
        run,
        state.net,
        state.optimizers,
        state.sums,
        state.step,
        epoch=state.epoch,
        batch=state.batch,
    )


if __name__ == "__main__":
    cli.main(main)
