"""The training of Segmenter: cross-entropy of pixels, by the paper's SGD or by AdamW."""

import copy
import functools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import images, malloc_tuning
from common.run import Run
from unsup_seg_torch import checkpoint, loop, precision
from unsup_seg_torch import data as pictures_data
from unsup_seg_torch.segmenter import config, data, model, pictures

log = logging.getLogger("unsup_seg_torch.segmenter.train")

POWER, FLOOR = 0.9, 1e-5  # of the polynomial, and the rate that it does not fall below; the paper's
PRIOR = (60, 80)  # cells of the baseline: the most frequent class at each place
COUNTED = 1000  # images from which class frequencies and the baseline are


@dataclass
class State:
    """All that a training is at one moment: what a checkpoint holds."""

    networks: nn.ModuleDict  # net, and average where the config asks for one
    optimizers: dict[str, torch.optim.Optimizer]
    sums: dict[str, Tensor]  # since they were last logged
    weights: Tensor | None = None  # of the classes in the loss; from the data, in no checkpoint
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0

    @property
    def net(self) -> model.Segmenter:
        return self.networks["net"]

    @property
    def kept(self) -> model.Segmenter:
        """The network that is meant for use."""
        return self.networks["average"] if "average" in self.networks else self.net

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device


def run_training(cfg: config.Config, run: Run, device: torch.device) -> None:
    """From labelled images to the weights in the run folder. Raises UserError."""
    scenes = data.Scenes(cfg.dataset, cfg.dataset.split)
    loop.note(run, scenes.checksum, device=str(device), pictures=len(scenes))
    state = begin(cfg, scenes.n_classes, device)
    if not loop.resume(run, state, state.networks):
        model.start_weights(cfg.model, state.net.encoder)
        average_weights(state, 0)
        run.note(classes=scenes.classes)
        write_prior(run, scenes)
    state.weights = class_weights(cfg.training, scenes)
    steps = functools.partial(train_epoch, cfg, state, scenes)
    loop.train(run, state, cfg.training.n_epochs, steps, save)
    if cfg.training.save_model:
        pictures.export(run, state.kept)
    if cfg.training.save_logs:
        loop.write_curves(run, list(state.sums))


def begin(cfg: config.Config, n_classes: int, device: torch.device) -> State:
    """The state before the first step, with random weights."""
    malloc_tuning.disable_trimming()
    torch.manual_seed(cfg.training.seed)
    networks = nn.ModuleDict({"net": model.build(cfg.model, n_classes, cfg.dataset.crop)})
    if cfg.training.average:
        networks["average"] = copy.deepcopy(networks["net"]).requires_grad_(False)
    networks.to(device)
    precision.prepare(networks, cfg.training.precision, device)
    names = ("loss", "pixel_accuracy")
    sums = {name: torch.zeros((), device=device) for name in names}
    return State(networks, {"net": optimizer(cfg.training, networks["net"])}, sums)


def optimizer(training: config.Training, net: nn.Module) -> torch.optim.Optimizer:
    """Weights of more than one dimension decay, embeddings and class tokens do not."""
    decayed, others = [], []
    for name, parameter in net.named_parameters():
        is_token = name.rpartition(".")[2] in ("pos_embed", "cls_token", "reg_token", "classes")
        (others if parameter.ndim < 2 or is_token else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": training.weight_decay}]
    groups += [{"params": others, "weight_decay": 0.0}]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, training.lr, training.momentum)
    return torch.optim.AdamW(groups, training.lr, fused=True)


def train_epoch(
    cfg: config.Config, state: State, scenes: data.Scenes
) -> Iterator[loop.Values | None]:
    """Trains from state.batch on; yields after each step: now and then the means since the last."""
    state.networks.train()
    n_batches = data.n_batches(cfg, len(scenes))
    n_steps = n_batches * cfg.training.n_epochs

    def step(batch: tuple[Tensor, Tensor]) -> tuple[int, float, dict[str, Tensor]]:
        rate = learning_rate(cfg.training, state.step, n_steps)
        return len(batch[0]), rate, train_step(cfg, state, *batch, rate)

    batches = data.batches(scenes, cfg, state.epoch, state.batch)
    yield from loop.epoch(state, batches, step, n_batches, n_steps, cfg.training.seed)


def train_step(
    cfg: config.Config, state: State, shown: Tensor, labels: Tensor, rate: float
) -> dict[str, Tensor]:
    """Images (b, 3, h, w) and labels (b, h, w) -> the loss and the accuracy before the update."""
    (descent,) = state.optimizers.values()
    for group in descent.param_groups:
        group["lr"] = rate
    shown, labels = shown.to(state.device), labels.to(state.device)
    with precision.autocast(cfg.training.precision, state.device):
        logits = state.net(shown)
    value = pixel_loss(logits, labels, state.weights)
    descent.zero_grad()
    value.backward()
    descent.step()
    average_weights(state, cfg.training.average)
    return {"loss": value.detach(), "pixel_accuracy": accuracy(logits.detach(), labels)}


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of labelled pixels whose own class has the highest of logits (b, k, h, w)."""
    known = labels != data.IGNORE
    # an argmax over strided classes takes ten times as long on the CPU as their maximum
    own = logits.gather(1, torch.where(known, labels, 0)[:, None])[:, 0]
    return ((own >= logits.amax(1)) & known).sum() / known.sum().clamp(min=1)


def pixel_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the pixels that have a label: (b, k, h, w), (b, h, w) -> a number.

    0 where none has. weights (k,): each pixel counts as its class does.
    """
    known = labels != data.IGNORE
    total = F.cross_entropy(
        logits.float(), labels, weights, ignore_index=data.IGNORE, reduction="sum"
    )
    if weights is None:
        return total / known.sum().clamp(min=1)
    return total / weights[labels[known]].sum().clamp(min=1e-6)


@torch.no_grad()
def average_weights(state: State, decay: float) -> None:
    """Moves the average towards the network; decay 0 makes them equal."""
    if "average" not in state.networks:
        return
    # young, the average is over the few steps there are
    decay = min(decay, (1 + state.step) / (10 + state.step)) if decay else 0.0
    pairs = [list(each.parameters()) for each in (state.kept, state.net)]
    torch._foreach_lerp_(*pairs, 1 - decay)


def learning_rate(training: config.Training, step: int, n_steps: int) -> float:
    """Before a step, counted from 0: after a linear rise a polynomial (sgd), or a cosine to 0."""
    n_warm = training.warmup * n_steps
    if step < n_warm:
        return training.lr * (step + 1) / (n_warm + 1)
    share = (step - n_warm) / max(n_steps - n_warm, 1)
    if training.optimizer == "sgd":
        return max(training.lr * (1 - share) ** POWER, min(FLOOR, training.lr))
    return training.lr * 0.5 * (1 + math.cos(math.pi * share))


def save(run: Run, state: State) -> None:
    checkpoint.save(
        run,
        state.networks,
        state.optimizers,
        state.sums,
        state.step,
        header=state.net.encoder.describe(),
        epoch=state.epoch,
        batch=state.batch,
    )


# ---- what the labels alone say


def class_weights(training: config.Training, scenes: data.Scenes) -> Tensor | None:
    """(1 / frequency) ** balance of each class, such that a pixel weighs 1 on average."""
    if not training.balance:
        return None
    counts = np.zeros(256, np.int64)
    for i in range(min(len(scenes), COUNTED)):
        counts += np.bincount(scenes[i][1].ravel(), minlength=256)
    frequency = np.maximum(counts[: scenes.n_classes], 1) / max(counts[:-1].sum(), 1)
    weights = frequency**-training.balance
    return torch.from_numpy(weights / (weights * frequency).sum()).float()


def write_prior(run: Run, scenes: data.Scenes) -> None:
    """The baseline: the most frequent class at each place, as RUN/prior.npy and a picture."""
    counts = np.zeros((scenes.n_classes + 1, *PRIOR), np.int32)
    rows, columns = np.indices(PRIOR)
    for i in range(min(len(scenes), COUNTED)):
        labels = pictures_data.nearest(scenes[i][1], PRIOR)
        counts[np.minimum(labels, scenes.n_classes), rows, columns] += 1
    prior = counts[:-1].argmax(0).astype(np.uint8)
    np.save(run.path / "prior.npy", prior)
    images.save_png(run.images / "prior.png", pictures.paint(prior, scenes.n_classes))
