"""Training of W-Net: the soft normalized cut and the reconstruction (algorithm 1)."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import curves, duplicates, malloc_tuning
from common.pytorch import checkpoint
from common.pytorch.device import select_device
from common.pytorch.metrics import RunningMetrics
from common.pytorch.random import PRIME
from common.run import Run
from unsup_seg_torch.wnet import config, data, figures, loss, model

log = logging.getLogger("unsup_seg_torch.wnet.train")

STEPS_BETWEEN_LOGS = 10
METRICS = ("soft_ncut", "reconstruction")


@dataclass
class State:
    """Training state saved in checkpoints."""

    net: model.WNet
    optimizers: dict[str, torch.optim.Optimizer]
    metrics: RunningMetrics
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device


def train(cfg: config.Config, run: Run) -> None:
    """Trains on the images of the config; the run folder gets the weights. Raises UserError."""
    photos = data.Photographs(cfg.dataset)
    run.check_dataset(photos.checksum)
    state = initial_state(cfg, select_device())
    run.note(dataset_checksum=photos.checksum, device=str(state.device), n_images=len(photos))
    resume(run, state)
    if state.step == 0:
        if message := duplicates.one_color([*map(duplicates.is_one_color, photos.images)]):
            log.warning("%s", message)
        load_start_weights(cfg.model, state.net)
        figures.write_baseline(run, photos)
    for _ in run.epochs(state.epoch, cfg.training.n_epochs):
        for metrics in train_epoch(cfg, state, photos.images):
            if metrics:
                run.log("train", state.step, epoch=state.epoch, **metrics)
            if state.batch == 0:  # the epoch has ended
                figures.snapshot(run, cfg, state.net, photos, state.epoch)
            if run.stopping:
                save(run, state)
                run.stop()
        if state.epoch == cfg.training.n_epochs or run.is_checkpoint_due():
            save(run, state)
    if cfg.training.save_model:
        figures.export(run)
    if cfg.training.save_logs:  # the reconstruction loss falls by orders of magnitude
        curves.write_curves(run, METRICS, log_scale=["reconstruction"])


def initial_state(cfg: config.Config, device: torch.device) -> State:
    """The state before the first step."""
    malloc_tuning.disable_trimming()
    torch.manual_seed(cfg.training.seed)
    # with few channels convolutions are faster in this memory format
    layout = torch.channels_last if cfg.model.width < 32 else torch.contiguous_format
    net = model.build(cfg.model).to(device, memory_format=layout)
    parameters = {"joint": list(net.parameters())}
    if cfg.training.mode == "alternating":
        parameters = {
            "cut": list(net.encoder.parameters()),
            "reconstruction": list(net.parameters()),
        }
    optimizers = {name: build_optimizer(cfg.training, each) for name, each in parameters.items()}
    return State(net, optimizers, RunningMetrics(METRICS, device))


def build_optimizer(training: config.Training, parameters: list[Tensor]) -> torch.optim.Optimizer:
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, training.lr, training.momentum)
    return torch.optim.Adam(parameters, training.lr, fused=True)


def load_start_weights(model_cfg: config.Model, net: model.WNet) -> None:
    """Loads model.weights, if given; warns if model.pretrained asks for weights without a file."""
    if model_cfg.weights:
        checkpoint.load_module(net, Path(model_cfg.weights))
        log.info("weights of %s", model_cfg.weights)
    elif model_cfg.pretrained:
        log.warning(
            "no pretrained weights of W-Net are published: starting from random weights; pass the "
            "model.safetensors of another run as --model.weights FILE"
        )


def train_epoch(
    cfg: config.Config, state: State, photos: Sequence[np.ndarray]
) -> Iterator[dict[str, float] | None]:
    """Trains from state.batch to the end of the epoch; photos: uint8 (h, w, 3) each.

    Yields after each step: the means since the last log, every STEPS_BETWEEN_LOGS steps, or None.
    """
    state.net.train()
    state.metrics.restart_clock()
    n_batches = data.n_batches(cfg, len(photos))
    n_steps = n_batches * cfg.training.n_epochs
    for images in data.batches(photos, cfg, state.epoch, state.batch):
        torch.manual_seed(cfg.training.seed * PRIME + state.step)  # dropout
        lr = learning_rate(cfg.training, state.step, n_steps)
        values = train_step(cfg, state, images.to(state.device), lr)
        state.metrics.add(values, len(images))
        state.step += 1
        state.batch += 1
        metrics = None
        if state.step % STEPS_BETWEEN_LOGS == 0 or state.step == n_steps:
            metrics = state.metrics.means((state.step - 1) % STEPS_BETWEEN_LOGS + 1) | {"lr": lr}
        if state.batch == n_batches:
            state.epoch, state.batch = state.epoch + 1, 0
        yield metrics


def train_step(cfg: config.Config, state: State, images: Tensor, lr: float) -> dict[str, Tensor]:
    """Images (b, 3, h, w) -> both losses, each before its update.

    Alternating (algorithm 1): the encoder is updated by the cut, then encoder and decoder by the
    reconstruction. Joint: one update by a weighted sum, at half the cost.
    """
    for optimizer in state.optimizers.values():
        optimizer.param_groups[0]["lr"] = lr
    net, model_cfg = state.net, cfg.model
    probabilities = net.encode(images)
    cut = loss.soft_ncut(
        probabilities,
        images,
        model_cfg.radius,
        model_cfg.sigma_intensity,
        model_cfg.sigma_position,
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
    """Before a step, counted from 0: divided by 10 every `drop_every` steps, cosine to 0."""
    lr = training.lr
    if training.drop_every:
        lr *= 0.1 ** (step // training.drop_every)
    if training.cosine:
        lr *= 0.5 * (1 + math.cos(math.pi * step / n_steps))
    return lr


def save(run: Run, state: State) -> None:
    checkpoint.save(
        run,
        state.step,
        state.net,
        state.optimizers,
        state.metrics.tensors,
        epoch=state.epoch,
        batch=state.batch,
    )


def resume(run: Run, state: State) -> None:
    latest = checkpoint.restore(run, state.net, state.optimizers, state.metrics.tensors)
    if latest:
        state.step = latest.step
        state.epoch, state.batch = latest.progress["epoch"], latest.progress["batch"]
