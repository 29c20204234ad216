"""Training of DINO: the student matches the teacher's outputs on other views of an image."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common import UserError, curves, malloc_tuning
from common.pytorch import checkpoint
from common.pytorch.device import select_device
from common.pytorch.metrics import RunningMetrics
from common.pytorch.precision import autocast
from common.pytorch.random import PRIME
from common.run import Run
from unsup_seg_torch.dino import config, data, figures, loss, model
from unsup_seg_torch.vit import weights as vit_weights
from unsup_seg_torch.vit.encoder import unfuse_attention

log = logging.getLogger("unsup_seg_torch.dino.train")

STEPS_BETWEEN_LOGS = 10
METRICS = ("loss", "entropy", "information")
LR_BATCH_SIZE = 256  # images per batch for which training.lr is the highest learning rate
# Information in the teacher's outputs, as a fraction of ln k, below which they have collapsed, and
# the fraction of the steps after which this is checked.
MIN_INFORMATION, COLLAPSE_WARMUP = 0.002, 0.1


@dataclass
class State:
    """Training state saved in checkpoints."""

    net: model.DINO
    optimizers: dict[str, torch.optim.Optimizer]
    metrics: RunningMetrics
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0
    has_warned: bool = False  # of a collapse; not in checkpoints

    @property
    def device(self) -> torch.device:
        return self.net.center.device


def train(cfg: config.Config, run: Run) -> None:
    """Trains on the images of the config; the run folder gets both networks. Raises UserError."""
    dataset = data.load(cfg.dataset)
    data.check(dataset)
    run.check_dataset(dataset.checksum)
    state = initial_state(cfg, select_device())
    n_images, n_epochs = len(dataset.paths), cfg.training.n_epochs
    run.note(dataset_checksum=dataset.checksum, device=str(state.device), n_images=n_images)
    resume(run, state)
    if state.step == 0:
        model.load_start_weights(cfg.model, state.net)
        if cfg.model.continue_training:
            continue_training(cfg, state, n_images)
        if n_epochs == 0:
            save(run, state)
    n_steps = data.n_batches(cfg.training, n_images) * n_epochs
    for _ in run.epochs(state.epoch, n_epochs):
        for metrics in train_epoch(cfg, state, dataset.images):
            if metrics:
                run.log("train", state.step, epoch=state.epoch, **metrics)
                warn_on_collapse(cfg.training, state, metrics, n_steps)
            if run.stopping:
                save(run, state)
                run.stop()
        if state.epoch == n_epochs or run.is_checkpoint_due():
            save(run, state)
    if cfg.training.save_model:
        figures.export(run, state.net.teacher.encoder)
    if cfg.training.save_logs and n_epochs:
        curves.write_curves(run, METRICS)


def continue_training(cfg: config.Config, state: State, n_images: int) -> None:
    """Moves to the epoch of model.weights, with its optimizer; raises UserError.

    The schedules are those of the config at that epoch. Their gradient scaler is not used here, and
    random numbers are ours.
    """
    state.epoch = model.load_training(state.optimizers["student"], Path(cfg.model.weights))
    if state.epoch >= cfg.training.n_epochs:
        raise UserError(
            f"model.continue_training: {cfg.model.weights} was trained for {state.epoch} epochs: "
            f"expected a larger training.n_epochs, it is {cfg.training.n_epochs}"
        )
    state.step = state.epoch * data.n_batches(cfg.training, n_images)


def initial_state(cfg: config.Config, device: torch.device) -> State:
    """The state before the first step, with random weights."""
    malloc_tuning.disable_trimming()
    torch.manual_seed(cfg.training.seed)
    net = model.build(cfg.model, cfg.training.large).to(device)
    unfuse_attention(net, cfg.training.precision, device)
    optimizer = build_optimizer(cfg.training, net.student)
    return State(net, {"student": optimizer}, RunningMetrics(METRICS, device))


def build_optimizer(training: config.Training, net: nn.Module) -> torch.optim.Optimizer:
    """AdamW with two groups: matrices, with weight decay, and biases and norms, without."""
    learned = [p for p in net.parameters() if p.requires_grad]
    groups = [{"params": [p for p in learned if p.ndim > 1]}]
    groups += [{"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, training.lr, fused=True)


def train_epoch(
    cfg: config.Config, state: State, pixels: np.ndarray
) -> Iterator[dict[str, float] | None]:
    """Trains from state.batch to the end of the epoch; pixels uint8 (n, h, w, 3).

    Yields after each step: the means since the last log, every STEPS_BETWEEN_LOGS steps, or None.
    """
    state.net.train()
    state.metrics.restart_clock()
    n_batches = data.n_batches(cfg.training, len(pixels))
    n_steps = n_batches * cfg.training.n_epochs
    for views in data.batches(pixels, cfg.training, state.epoch, state.batch):
        torch.manual_seed(cfg.training.seed * PRIME + state.step)  # drop path
        lr = schedules(cfg.training, state.step, n_steps)["lr"]
        state.metrics.add(train_step(cfg, state, views, n_steps, n_batches), len(views[0]))
        state.step += 1
        state.batch += 1
        metrics = None
        if state.step % STEPS_BETWEEN_LOGS == 0 or state.step == n_steps:
            metrics = state.metrics.means((state.step - 1) % STEPS_BETWEEN_LOGS + 1) | {"lr": lr}
        if state.batch == n_batches:
            state.epoch, state.batch = state.epoch + 1, 0
        yield metrics


def train_step(
    cfg: config.Config, state: State, views: list[Tensor], n_steps: int, n_batches: int
) -> dict[str, Tensor]:
    """Views (b, 3, s, s), the two global ones first -> the loss before the update, and two shares.

    entropy: of the teacher's distributions; information: that these carry about the images. Both as
    fractions of ln k.
    """
    training, net = cfg.training, state.net
    schedule = schedules(training, state.step, n_steps)
    (optimizer,) = state.optimizers.values()
    for group, decay in zip(optimizer.param_groups, (schedule["weight_decay"], 0.0), strict=True):
        group["lr"], group["weight_decay"] = schedule["lr"], decay
    views = [view.to(state.device) for view in views]
    with autocast(training.precision, state.device):
        with torch.no_grad():
            teacher_outputs = net.teacher(views[:2])
        features = net.student.features(views)
        student_outputs = net.student.head(features)
    targets = loss.teacher_targets(teacher_outputs, net.center, schedule["teacher_temperature"])
    value = loss.dino_loss(student_outputs, targets, training.temperature)
    if training.koleo:
        value = value + training.koleo * sum(loss.koleo(view) for view in features[:2])
    optimizer.zero_grad()
    value.backward()
    if training.clip:
        clip_gradients(optimizer, training.clip)
    if state.step < training.freeze_last * n_batches:
        for parameter in net.student.head.last.parameters():
            parameter.grad = None
    optimizer.step()
    net.update_teacher(schedule["momentum"])
    loss.update_center(net.center, teacher_outputs, training.center_momentum)
    entropy, entropy_of_mean = loss.entropies(targets)
    return {"loss": value.detach(), "entropy": entropy, "information": entropy_of_mean - entropy}


@torch.no_grad()
def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Clips the gradient norm of each parameter separately."""
    # The authors fetch each norm to compare it; here nothing waits for the device.
    gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    factors = [(max_norm / (norm + 1e-6)).clamp(max=1) for norm in norms]
    torch._foreach_mul_(gradients, factors)


def schedules(training: config.Training, step: int, n_steps: int) -> dict[str, float]:
    """Before a step, counted from 0: lr, weight_decay, momentum, teacher_temperature.

    lr is proportional to the batch size (Goyal et al. 2017, the linear scaling rule).
    """
    highest_lr = training.lr * training.batch_size / LR_BATCH_SIZE

    def cosine(first: float, last: float, done: float) -> float:
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))

    done, n_warmup = step / n_steps, training.warmup * n_steps
    if step < n_warmup:
        lr = highest_lr * step / n_warmup
    else:
        lr = cosine(highest_lr, training.final_lr, (step - n_warmup) / (n_steps - n_warmup))
    low, high = training.teacher_temperature, training.final_teacher_temperature
    warmed_up = min(1.0, done / training.teacher_warmup) if training.teacher_warmup else 1.0
    return {
        "lr": lr,
        "weight_decay": cosine(training.weight_decay, training.final_weight_decay, done),
        "momentum": cosine(training.momentum, 1.0, done),
        "teacher_temperature": low + (high - low) * warmed_up,
    }


def warn_on_collapse(
    training: config.Training, state: State, metrics: dict[str, float], n_steps: int
) -> None:
    """Warns once if the teacher's outputs are the same for every image."""
    is_early = state.step < COLLAPSE_WARMUP * n_steps or training.batch_size < 4
    if state.has_warned or is_early or metrics["information"] >= MIN_INFORMATION:
        return
    state.has_warned = True
    is_uniform = metrics["entropy"] > 0.5
    log.warning(
        "step %d: collapse, the teacher's outputs are %s for every image (entropy %.3f, "
        "information %.4f of ln k): %s",
        state.step,
        "uniform" if is_uniform else "the same",
        metrics["entropy"],
        metrics["information"],
        "lower training.teacher_temperature or training.lr"
        if is_uniform
        else "lower training.center_momentum, or raise training.teacher_temperature",
    )


def save(run: Run, state: State) -> None:
    checkpoint.save(
        run,
        state.step,
        state.net,
        state.optimizers,
        state.metrics.tensors,
        header=state.net.teacher.encoder.describe(),
        epoch=state.epoch,
        batch=state.batch,
    )


def resume(run: Run, state: State) -> None:
    latest = checkpoint.restore(run, state.net, state.optimizers, state.metrics.tensors)
    if latest:
        vit_weights.adopt_header(state.net, latest.path / "model.safetensors")
        state.step = latest.step
        state.epoch, state.batch = latest.progress["epoch"], latest.progress["batch"]
