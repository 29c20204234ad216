"""Training of Segmenter: pixel cross-entropy, minimized by SGD as in the paper, or by AdamW."""

import copy
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common import UserError, curves, images, malloc_tuning
from common.pytorch import checkpoint
from common.pytorch.device import select_device
from common.pytorch.metrics import RunningMetrics
from common.pytorch.precision import autocast
from common.pytorch.random import PRIME
from common.run import Run
from unsup_seg_torch.segmenter import config, data, figures, loss, model
from unsup_seg_torch.vit import weights as vit_weights
from unsup_seg_torch.vit.encoder import unfuse_attention

log = logging.getLogger("unsup_seg_torch.segmenter.train")

STEPS_BETWEEN_LOGS = 10
METRICS = ("loss", "pixel_accuracy")
POWER, MIN_LR = 0.9, 1e-5  # of the polynomial decay, as in the paper
PRIOR_SIZE = (60, 80)  # rows and columns of the baseline, the most frequent class at each position
MAX_IMAGES_FOR_STATISTICS = 1000  # for class frequencies and the baseline


@dataclass
class State:
    """Training state saved in checkpoints."""

    networks: nn.ModuleDict  # net, and average if the config asks for one
    optimizers: dict[str, torch.optim.Optimizer]
    metrics: RunningMetrics
    class_weights: Tensor | None = None  # from the data, not in checkpoints
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0

    @property
    def net(self) -> model.Segmenter:
        return self.networks["net"]

    @property
    def kept(self) -> model.Segmenter:
        """The network to use after training."""
        return self.networks["average"] if "average" in self.networks else self.net

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device


def train(cfg: config.Config, run: Run) -> None:
    """Trains on the labeled images of the config; the run folder gets the weights. UserError."""
    if cfg.training.n_epochs == 0:
        keep_weights(cfg, run)
        return
    dataset = data.LabeledImages(cfg.dataset, cfg.dataset.split)
    dataset.check_classes()
    run.check_dataset(dataset.checksum)
    state = initial_state(cfg, dataset.n_classes, select_device())
    run.note(dataset_checksum=dataset.checksum, device=str(state.device), n_images=len(dataset))
    resume(run, state)
    if state.step == 0:
        load_start_weights(cfg, state)
        run.note(classes=dataset.classes)
        write_class_prior(run, dataset)
    state.class_weights = class_weights(cfg.training, dataset)
    for _ in run.epochs(state.epoch, cfg.training.n_epochs):
        for metrics in train_epoch(cfg, state, dataset):
            if metrics:
                run.log("train", state.step, epoch=state.epoch, **metrics)
            if run.stopping:
                save(run, state)
                run.stop()
        if state.epoch == cfg.training.n_epochs or run.is_checkpoint_due():
            save(run, state)
    if cfg.training.save_model:
        figures.export(run, state.kept)
    if cfg.training.save_logs:
        curves.write_curves(run, METRICS)


def keep_weights(cfg: config.Config, run: Run) -> None:
    """The run folder gets model.weights, encoder and decoder, without training. UserError.

    No images are read: the classes have numbers for names.
    """
    if not (cfg.model.weights and cfg.model.load_decoder):
        raise UserError(
            "training.n_epochs is 0: set model.weights to a file with a trained encoder and "
            "decoder, or train for at least one epoch"
        )
    n_classes = model.n_classes(Path(cfg.model.weights), cfg.model.cells)
    state = initial_state(cfg, n_classes, select_device())
    load_start_weights(cfg, state)
    run.note(classes=[str(k) for k in range(n_classes)], device=str(state.device))
    save(run, state)
    if cfg.training.save_model:
        figures.export(run, state.kept)


def load_start_weights(cfg: config.Config, state: State) -> None:
    """Loads what the config names into the network and its average; raises UserError."""
    model.load_start_weights(cfg.model, state.net)
    state.kept.load_state_dict(state.net.state_dict())
    state.kept.encoder.adopt(state.net.encoder.header())


def initial_state(cfg: config.Config, n_classes: int, device: torch.device) -> State:
    """The state before the first step, with random weights."""
    malloc_tuning.disable_trimming()
    torch.manual_seed(cfg.training.seed)
    networks = nn.ModuleDict({"net": model.build(cfg.model, n_classes, cfg.dataset.crop)})
    if cfg.training.average:
        networks["average"] = copy.deepcopy(networks["net"]).requires_grad_(False)
    networks.to(device)
    unfuse_attention(networks, cfg.training.precision, device)
    optimizer = build_optimizer(cfg.training, networks["net"])
    return State(networks, {"net": optimizer}, RunningMetrics(METRICS, device))


def build_optimizer(training: config.Training, net: nn.Module) -> torch.optim.Optimizer:
    """Weight decay applies to matrices, not to biases, norms, embeddings and class tokens."""
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
    cfg: config.Config, state: State, dataset: data.LabeledImages
) -> Iterator[dict[str, float] | None]:
    """Trains from state.batch to the end of the epoch.

    Yields after each step: the means since the last log, every STEPS_BETWEEN_LOGS steps, or None.
    """
    state.networks.train()
    state.metrics.restart_clock()
    n_batches = data.n_batches(cfg, len(dataset))
    n_steps = n_batches * cfg.training.n_epochs
    for pixels, labels in data.batches(dataset, cfg, state.epoch, state.batch):
        torch.manual_seed(cfg.training.seed * PRIME + state.step)  # dropout and drop path
        lr = learning_rate(cfg.training, state.step, n_steps)
        values = train_step(cfg, state, pixels.to(state.device), labels.to(state.device), lr)
        state.metrics.add(values, len(pixels))
        state.step += 1
        state.batch += 1
        metrics = None
        if state.step % STEPS_BETWEEN_LOGS == 0 or state.step == n_steps:
            metrics = state.metrics.means((state.step - 1) % STEPS_BETWEEN_LOGS + 1) | {"lr": lr}
        if state.batch == n_batches:
            state.epoch, state.batch = state.epoch + 1, 0
        yield metrics


def train_step(
    cfg: config.Config, state: State, pixels: Tensor, labels: Tensor, lr: float
) -> dict[str, Tensor]:
    """Images (b, 3, h, w), labels (b, h, w) -> loss and pixel accuracy before the update."""
    (optimizer,) = state.optimizers.values()
    for group in optimizer.param_groups:
        group["lr"] = lr
    with autocast(cfg.training.precision, state.device):
        logits = state.net(pixels)
    value = loss.pixel_cross_entropy(logits, labels, state.class_weights)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    update_average(state, cfg.training.average)
    accuracy = loss.pixel_accuracy(logits.detach(), labels)
    return {"loss": value.detach(), "pixel_accuracy": accuracy}


@torch.no_grad()
def update_average(state: State, decay: float) -> None:
    """Updates the moving average of the weights; decay 0 copies them."""
    if "average" not in state.networks:
        return
    # early on, the average is over the few steps so far
    decay = min(decay, (1 + state.step) / (10 + state.step)) if decay else 0.0
    pairs = [list(net.parameters()) for net in (state.kept, state.net)]
    torch._foreach_lerp_(*pairs, 1 - decay)


def learning_rate(training: config.Training, step: int, n_steps: int) -> float:
    """Before a step, counted from 0: linear warmup, then polynomial (sgd) or cosine decay."""
    n_warmup = training.warmup * n_steps
    if step < n_warmup:
        return training.lr * (step + 1) / (n_warmup + 1)
    done = (step - n_warmup) / max(n_steps - n_warmup, 1)
    if training.optimizer == "sgd":
        return max(training.lr * (1 - done) ** POWER, min(MIN_LR, training.lr))
    return training.lr * 0.5 * (1 + math.cos(math.pi * done))


def save(run: Run, state: State) -> None:
    checkpoint.save(
        run,
        state.step,
        state.networks,
        state.optimizers,
        state.metrics.tensors,
        header=state.net.encoder.describe(),
        epoch=state.epoch,
        batch=state.batch,
    )


def resume(run: Run, state: State) -> None:
    latest = checkpoint.restore(run, state.networks, state.optimizers, state.metrics.tensors)
    if latest:
        vit_weights.adopt_header(state.networks, latest.path / "model.safetensors")
        state.step = latest.step
        state.epoch, state.batch = latest.progress["epoch"], latest.progress["batch"]


# ---- statistics of the labels


def class_weights(training: config.Training, dataset: data.LabeledImages) -> Tensor | None:
    """(1 / frequency) ** balance of each class, scaled so that pixels have weight 1 on average."""
    if not training.balance:
        return None
    counts = np.zeros(256, np.int64)
    for i in range(min(len(dataset), MAX_IMAGES_FOR_STATISTICS)):
        counts += np.bincount(dataset[i][1].ravel(), minlength=256)
    frequency = np.maximum(counts[: dataset.n_classes], 1) / max(counts[:-1].sum(), 1)
    weights = frequency**-training.balance
    return torch.from_numpy(weights / (weights * frequency).sum()).float()


def write_class_prior(run: Run, dataset: data.LabeledImages) -> None:
    """RUN/prior.npy and a figure: the baseline, the most frequent class at each position."""
    counts = np.zeros((dataset.n_classes + 1, *PRIOR_SIZE), np.int32)
    rows, columns = np.indices(PRIOR_SIZE)
    for i in range(min(len(dataset), MAX_IMAGES_FOR_STATISTICS)):
        labels = images.resize_labels(dataset[i][1], PRIOR_SIZE)
        counts[np.minimum(labels, dataset.n_classes), rows, columns] += 1
    prior = counts[:-1].argmax(0).astype(np.uint8)
    np.save(run.path / "prior.npy", prior)
    images.save_png(run.images / "prior.png", figures.paint(prior, dataset.n_classes))
