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
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from common import cli, malloc_tuning
from common.run import Run
from unsup_seg_torch import checkpoint, config, data, flags, loop, loss, pictures, wnet

log = logging.getLogger("unsup_seg_torch.train")


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
    loop.note(run, found.checksum, device=str(where), pictures=len(found))
    state = begin(cfg, where)
    if not loop.resume(run, state, state.net):
        start_weights(cfg.model, state.net)
        pictures.write_baseline(run, found)

    def after(values: loop.Values | None) -> None:
        if state.batch == 0:  # the epoch is over
            pictures.snapshot(run, cfg, state.net, found, state.epoch)

    loop.train(
        run,
        state,
        cfg.training.n_epochs,
        lambda: train_epoch(cfg, state, found.images),
        save,
        after,
    )
    if cfg.training.save_model:
        pictures.export(run)
    if cfg.training.save_logs:
        loop.write_curves(run, list(state.sums))


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
    malloc_tuning.disable_trimming()
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


def train_epoch(cfg: config.Config, state: State, images: list) -> Iterator[loop.Values | None]:
    """Trains from state.batch on; yields after each step: now and then the losses since the last.

    images: uint8 (h, w, 3) each.
    """
    state.net.train()
    where = next(state.net.parameters()).device
    n_batches = data.n_batches(cfg, len(images))
    n_steps = n_batches * cfg.training.n_epochs

    def step(batch: Tensor) -> tuple[int, float, dict[str, Tensor]]:
        rate = learning_rate(cfg.training, state.step, n_steps)
        return len(batch), rate, train_step(cfg, state, batch.to(where), rate)

    batches = data.batches(images, cfg, state.epoch, state.batch)
    yield from loop.epoch(state, batches, step, n_batches, n_steps, cfg.training.seed)


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
