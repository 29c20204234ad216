"""The training of DINO: the student learns what the teacher says of other views of an image."""

import functools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common import malloc_tuning
from common.run import Run
from unsup_seg_torch import checkpoint, loop, precision
from unsup_seg_torch.dino import config, data, loss, model, pictures

log = logging.getLogger("unsup_seg_torch.dino.train")

# What the teacher's outputs say of the images, as a share of ln k, below which it is a collapse,
# once this share of the steps is done.
COLLAPSED, AFTER = 0.002, 0.1


@dataclass
class State:
    """All that a training is at one moment: what a checkpoint holds."""

    net: model.DINO
    optimizers: dict[str, torch.optim.Optimizer]
    sums: dict[str, Tensor]  # since they were last logged
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0
    has_warned: bool = False  # of a collapse; in no checkpoint

    @property
    def device(self) -> torch.device:
        return self.net.centre.device


def run_training(cfg: config.Config, run: Run, device: torch.device) -> None:
    """From images to student and teacher in the run folder. Raises UserError."""
    found = data.load(cfg.dataset)
    data.check(cfg, found)
    loop.note(run, found.checksum, device=str(device), n_images=len(found.paths))
    state = begin(cfg, device)
    if not loop.resume(run, state, state.net):
        model.start_weights(cfg.model, state.net)
        if cfg.training.n_epochs == 0:
            save(run, state)

    def after(values: loop.Values | None) -> None:
        if values:
            watch(cfg, state, values, len(found.images))

    steps = functools.partial(train_epoch, cfg, state, found.images)
    loop.train(run, state, cfg.training.n_epochs, steps, save, after)
    if cfg.training.save_model:
        pictures.export(run, state.net.teacher.encoder)
    if cfg.training.save_logs and cfg.training.n_epochs:
        loop.write_curves(run, list(state.sums))


def begin(cfg: config.Config, device: torch.device) -> State:
    """The state before the first step, with random weights."""
    malloc_tuning.disable_trimming()
    torch.manual_seed(cfg.training.seed)
    net = model.build(cfg.model, cfg.training.large).to(device)
    precision.prepare(net, cfg.training.precision, device)
    names = ("loss", "entropy", "information")
    sums = {name: torch.zeros((), device=device) for name in names}
    return State(net, {"student": optimizer(cfg.training, net.student)}, sums)


def optimizer(training: config.Training, net: nn.Module) -> torch.optim.Optimizer:
    """AdamW, whose first group decays, and whose second, of biases and norms, does not."""
    learned = [p for p in net.parameters() if p.requires_grad]
    groups = [{"params": [p for p in learned if p.ndim > 1]}]
    groups += [{"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, training.lr, fused=True)


def train_epoch(
    cfg: config.Config, state: State, images: np.ndarray
) -> Iterator[loop.Values | None]:
    """Trains from state.batch on; yields after each step: now and then the means since the last.

    images uint8 (n, h, w, 3)
    """
    state.net.train()
    n_batches = data.n_batches(cfg.training, len(images))
    n_steps = n_batches * cfg.training.n_epochs

    def step(views: list[Tensor]) -> tuple[int, float, dict[str, Tensor]]:
        rate = schedules(cfg.training, state.step, n_steps)["lr"]
        return len(views[0]), rate, train_step(cfg, state, views, n_steps, n_batches)

    batches = data.batches(images, cfg, state.epoch, state.batch)
    yield from loop.epoch(state, batches, step, n_batches, n_steps, cfg.training.seed)


def train_step(
    cfg: config.Config, state: State, views: list[Tensor], n_steps: int, n_batches: int
) -> dict[str, Tensor]:
    """Views (b, 3, s, s), the two large ones first -> the loss before the update, and two shares.

    entropy: of the teacher's distributions; information: what they say of the images. Both as
    shares of ln k.
    """
    training, net = cfg.training, state.net
    now = schedules(training, state.step, n_steps)
    (descent,) = state.optimizers.values()
    for group, decay in zip(descent.param_groups, (now["weight_decay"], 0.0), strict=True):
        group["lr"], group["weight_decay"] = now["lr"], decay
    views = [view.to(state.device) for view in views]
    with precision.autocast(training.precision, state.device):
        with torch.no_grad():
            taught = net.teacher(views[:2])
        features = net.student.features(views)
        said = net.student.head(features)
    wanted = loss.targets(taught, net.centre, now["teacher_temperature"])
    value = loss.dino_loss(said, wanted, training.temperature)
    if training.koleo:
        value = value + training.koleo * sum(loss.koleo(view) for view in features[:2])
    descent.zero_grad()
    value.backward()
    if training.clip:
        clip(descent, training.clip)
    if state.step < training.freeze_last * n_batches:  # the last layer makes its targets first
        for parameter in net.student.head.last.parameters():
            parameter.grad = None
    descent.step()
    net.follow(now["momentum"])
    loss.update_centre(net.centre, taught, training.centre_momentum)
    each, of_mean = loss.entropies(wanted)
    return {"loss": value.detach(), "entropy": each, "information": of_mean - each}


@torch.no_grad()
def clip(descent: torch.optim.Optimizer, limit: float) -> None:
    """Shortens the gradient of each parameter by itself to the limit."""
    # paper: each parameter's norm is fetched to be compared; here nothing waits for the device
    gradients = [p.grad for g in descent.param_groups for p in g["params"] if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    shares = [(limit / (norm + 1e-6)).clamp(max=1) for norm in norms]
    torch._foreach_mul_(gradients, shares)


def schedules(training: config.Training, step: int, n_steps: int) -> dict[str, float]:
    """Before a step, counted from 0: lr, weight_decay, momentum, teacher_temperature."""

    def cosine(first: float, last: float, share: float) -> float:
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))

    share, n_warm = step / n_steps, training.warmup * n_steps
    if step < n_warm:
        rate = training.lr * step / n_warm
    else:
        rate = cosine(training.lr, training.final_lr, (step - n_warm) / (n_steps - n_warm))
    low, high = training.teacher_temperature, training.final_teacher_temperature
    warm = min(1.0, share / training.teacher_warmup) if training.teacher_warmup else 1.0
    return {
        "lr": rate,
        "weight_decay": cosine(training.weight_decay, training.final_weight_decay, share),
        "momentum": cosine(training.momentum, 1.0, share),
        "teacher_temperature": low + (high - low) * warm,
    }


def watch(cfg: config.Config, state: State, values: dict[str, float], n: int) -> None:
    """Warns once of a collapse: outputs that are the same for every image."""
    n_steps = data.n_batches(cfg.training, n) * cfg.training.n_epochs
    is_young = state.step < AFTER * n_steps or cfg.training.batch_size < 4
    if state.has_warned or is_young or values["information"] >= COLLAPSED:
        return
    state.has_warned = True
    uniform = values["entropy"] > 0.5
    log.warning(
        "step %d: a collapse, the teacher's outputs are %s for every image (entropy %.3f, "
        "information %.4f of ln k): %s",
        state.step,
        "uniform" if uniform else "the same",
        values["entropy"],
        values["information"],
        "lower training.teacher_temperature or training.lr"
        if uniform
        else "lower training.centre_momentum, or raise training.teacher_temperature",
    )


def save(run: Run, state: State) -> None:
    checkpoint.save(
        run,
        state.net,
        state.optimizers,
        state.sums,
        state.step,
        header=state.net.teacher.encoder.describe(),
        epoch=state.epoch,
        batch=state.batch,
    )
