"""Trains DTI clustering: python dti_torch/train.py --config mnist_test.yml"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common import UserError, cli, duplicates, malloc_tuning, metrics
from common.pytorch import checkpoint
from common.pytorch.device import limit_threads, select_device
from common.pytorch.precision import compute_dtype
from common.pytorch.random import seeded_generator
from common.run import Run
from dti_torch import cluster, config, data, figures, model

log = logging.getLogger("dti_torch.train")

SECONDS_BETWEEN_CHECKPOINTS = 30.0
PRUNING_IMAGES = 10_000  # images on which removal costs are measured
BUFFERS = ("winners", "wins", "numbers", "losses")  # tensors of State that checkpoints hold
PREFIX = "optimizer."  # of the optimizer's tensors in a checkpoint


@dataclass
class State:
    """Training state, saved in checkpoints."""

    net: model.DTI
    optimizer: torch.optim.Optimizer
    winners: Tensor  # (n,) int, number of each image's prototype in this epoch; -1: not seen yet
    wins: Tensor  # (k,) images that each prototype has won since the last check
    numbers: Tensor  # (k,) int, indices of the prototypes before any was removed
    losses: Tensor  # (2,) sums over the steps since the last check and over the epoch's images
    epoch: int = 0
    batch: int = 0  # batches done in this epoch
    step: int = 0


def main() -> None:
    cfg, run = cli.start(config.Config, __file__)
    with run:
        dataset = data.load(cfg.dataset)
        run.check_dataset(dataset.checksum)
        images = data.to_device(dataset.images, select_device())
        n_warped = cfg.training.batch_size * cfg.model.n_initial(len(images))  # prototypes per step
        limit_threads(n_warped * images.shape[1:].numel())
        threads = torch.get_num_threads()
        run.note(dataset_checksum=dataset.checksum, device=str(images.device), threads=threads)
        state = initial_state(cfg, images)
        resume(run, state, cfg.model)
        if state.step == 0:
            if message := duplicates.few_distinct(dataset.images, cfg.model.n_prototypes):
                log.warning("%s", message)
            write_baseline(run, cfg, images, dataset.labels)
        last_save = time.monotonic()
        n_epochs = cfg.training.n_epochs
        for epoch in run.epochs(state.epoch, n_epochs):
            for _ in train_epoch(cfg, state, images, run):
                if run.stopping:
                    save(run, state, cfg.model.n_prototypes)
                    run.stop()
            metrics_text = log_epoch(run, state, dataset.labels)
            log.info("epoch %d of %d: %s", epoch + 1, n_epochs, metrics_text)
            figures.save_frame(run, state.net, state.numbers, images, epoch, n_epochs)
            is_last = state.epoch == n_epochs
            if is_last or time.monotonic() - last_save > SECONDS_BETWEEN_CHECKPOINTS:
                save(run, state, cfg.model.n_prototypes)
                last_save = time.monotonic()


def initial_state(cfg: config.Config, images: Tensor) -> State:
    """The state before the first step on images uint8 (n, c, h, w); raises UserError if too few."""
    n = len(images)
    if n < 2:
        raise UserError(f"there is only {n} image: clustering needs two")
    if cfg.model.n_prototypes > n:
        k = cfg.model.n_prototypes
        raise UserError(f"model.n_prototypes is {k}, but there are only {n} images")
    malloc_tuning.disable_trimming()
    torch.manual_seed(cfg.training.seed)
    prototypes = cluster.initial_prototypes(images, cfg.model, cfg.training.seed)
    net = model.build(cfg.model, prototypes).to(images.device)
    if cfg.model.name == "dtigmm" and cfg.model.init == "kmeans":
        sigmas = cluster.initial_sigmas(images, prototypes, cfg.model.var_min)
        net.sigmas.data = sigmas.to(images.device)
    net.encoder_dtype = compute_dtype(cfg.training.precision, images.device)
    without_decay = ("prototypes", "sigmas", "mixing_logits")
    groups: list[dict] = [
        {"params": [p for name, p in net.named_parameters() if name in without_decay]},
        {
            "params": [p for name, p in net.named_parameters() if name not in without_decay],
            "weight_decay": cfg.training.weight_decay,
        },
    ]
    optimizer = torch.optim.Adam(groups, cfg.training.lr, fused=True)
    k = len(prototypes)
    return State(
        net,
        optimizer,
        winners=torch.full((n,), -1, device=images.device),
        wins=torch.zeros(k, device=images.device),
        numbers=torch.arange(k, device=images.device),
        losses=torch.zeros(2, device=images.device),
    )


def train_epoch(
    cfg: config.Config, state: State, images: Tensor, run: Run | None = None
) -> Iterator[None]:
    """Trains for one epoch from state.batch on; yields after each step, where it can be stopped."""
    training = cfg.training
    starts = cfg.model.start_epochs(training.n_epochs)
    state.net.n_active = 1 + sum(state.epoch >= start for start in starts)
    if state.batch == 0:
        state.winners.fill_(-1)
        state.losses[1] = 0
    began, n_done = time.perf_counter(), 0
    for batch, indices in data.batches(
        images, training.batch_size, training.seed, state.epoch, state.batch
    ):
        epochs_done = state.epoch + state.batch * training.batch_size / len(images)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(training, epochs_done)
        prune(cfg, state, images, epochs_done)
        loss, distances = train_step(state, batch)
        winners = distances.argmin(1)
        state.winners[indices] = state.numbers[winners]
        state.wins += torch.bincount(winners, minlength=len(state.wins))
        state.losses += loss * torch.tensor([1.0, len(batch)], device=images.device)
        state.batch += 1
        state.step += 1
        n_done += len(batch)
        if state.step % training.check_interval == 0:
            check_clusters(cfg, state, run, n_done / (time.perf_counter() - began))
            began, n_done = time.perf_counter(), 0
        yield
    state.epoch, state.batch = state.epoch + 1, 0
    prune(cfg, state, images, state.epoch)


def train_step(state: State, images: Tensor) -> tuple[Tensor, Tensor]:
    """One step of Adam on images (b, c, h, w) -> the loss and distances (b, k) before the step."""
    try:
        loss, distances = state.net.loss(images)
    except UserError as error:
        raise UserError(f"step {state.step + 1}: {error}") from None
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    return loss.detach(), distances


def learning_rate(training: config.Training, epochs_done: float) -> float:
    """The learning rate after a number of epochs: step decay, then a cosine to zero."""
    rate = training.lr * training.gamma ** sum(epochs_done >= m for m in training.milestones)
    if training.cosine_from is None:
        return rate
    start = config.in_epochs(training.cosine_from, training.n_epochs)
    # a training that ends before `start` keeps its rate
    fraction = (epochs_done - start) / max(training.n_epochs - start, 1e-9)
    return rate * 0.5 * (1 + math.cos(math.pi * min(max(fraction, 0.0), 1.0)))


def check_clusters(
    cfg: config.Config, state: State, run: Run | None, images_per_second: float
) -> None:
    """Logs the metrics since the last check and reassigns empty clusters."""
    proportions = state.wins / state.wins.sum()
    if run:
        run.log(
            "train",
            state.step,
            epoch=state.epoch,
            loss=float(state.losses[0]) / cfg.training.check_interval,
            images_per_second=round(images_per_second, 1),
            **{
                f"proportion/{k}": round(p, 5)
                for k, p in zip(state.numbers.tolist(), proportions.tolist(), strict=True)
            },
        )
    threshold = cfg.model.empty_cluster_threshold
    threshold = 0.2 / len(proportions) if threshold is None else threshold
    empty = torch.nonzero(proportions < threshold).flatten().tolist()
    if cfg.model.reassign_empty and empty:
        donor = int(proportions.argmax())
        generator = seeded_generator(cfg.training.seed, state.step)
        cluster.reassign(state.net, state.optimizer, empty, donor, generator)
        numbers = state.numbers.tolist()
        replaced = [numbers[k] for k in empty]
        log.info(
            "step %d: empty clusters %s become copies of %d", state.step, replaced, numbers[donor]
        )
    state.wins.zero_()
    state.losses[0] = 0


def prune(cfg: config.Config, state: State, images: Tensor, epochs_done: float) -> None:
    """Removes surplus prototypes if it is time, the ones without which the loss rises least."""
    n_initial = cfg.model.n_initial(len(images))
    n_left = cfg.model.n_left(n_initial, epochs_done, cfg.training.n_epochs)
    n_removed = len(state.numbers) - n_left
    if n_removed <= 0:
        return
    generator = seeded_generator(cfg.training.seed, state.step)
    sample = torch.randperm(len(images), generator=generator)[:PRUNING_IMAGES]
    state.net.eval()
    distances = cluster.distances(state.net, images[sample.to(images.device)])
    state.net.train()
    removed = cluster.superfluous(distances, n_removed)
    log.info("step %d: prototypes %s are removed", state.step, state.numbers[removed].tolist())
    remove(state, removed)


def remove(state: State, clusters: list[int]) -> None:
    left = cluster.remove(state.net, state.optimizer, clusters)
    state.wins, state.numbers = state.wins[left], state.numbers[left]


def log_epoch(run: Run, state: State, labels: np.ndarray | None) -> str:
    """Logs the mean loss of the epoch, and scores of its winners if there are labels."""
    values = {"loss": float(state.losses[1]) / len(state.winners)}
    if labels is not None:
        clusters = state.winners.cpu().numpy()
        values["acc"] = metrics.clustering_accuracy(labels, clusters)
        values["nmi"] = metrics.nmi(labels, clusters)
    run.log("epoch", state.step, epoch=state.epoch, transformations=state.net.n_active, **values)
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def write_baseline(run: Run, cfg: config.Config, images: Tensor, labels: np.ndarray | None) -> None:
    """Clusters by k-means on the pixels, a first result to compare with."""
    clusters = cluster.pixel_kmeans(images, cfg.model.n_prototypes, cfg.training.seed)
    np.savez_compressed(run.path / "baseline.npz", clusters=clusters)
    if labels is None:
        sizes = np.bincount(clusters).tolist()
        log.info("baseline: k-means on pixels, cluster sizes %s", sizes)
    else:
        acc, nmi = metrics.clustering_accuracy(labels, clusters), metrics.nmi(labels, clusters)
        log.info("baseline: k-means on pixels, acc %.4f, nmi %.4f", acc, nmi)


def save(run: Run, state: State, n_prototypes: int) -> None:
    """Writes a checkpoint; raises UserError, and keeps the previous one, for NaN weights."""
    checkpoint.check_finite(state.net, state.step)
    tensors = {name: getattr(state, name) for name in BUFFERS}
    tensors |= checkpoint.optimizer_tensors(state.optimizer, PREFIX)
    run.checkpoint(
        state.step,
        {
            "model.safetensors": lambda path: checkpoint.write(path, state.net.state_dict()),
            "state.safetensors": lambda path: checkpoint.write(path, tensors),
        },
        epoch=state.epoch,
        batch=state.batch,
        n_prototypes=n_prototypes,
    )


def resume(run: Run, state: State, cfg: config.Model) -> None:
    """Continues from the latest checkpoint, if there is one, as if never interrupted."""
    latest = run.latest_checkpoint()
    if latest is None:
        run.rewind()
        return
    model.check_number(latest, cfg)
    path = latest.path / "state.safetensors"
    saved = checkpoint.read(path)
    buffers = {name: value for name, value in saved.items() if not name.startswith(PREFIX)}
    n_removed = len(state.numbers) - len(buffers.get("numbers", state.numbers))
    remove(state, list(range(n_removed)))  # any: the shapes are what counts here
    checkpoint.load_module(state.net, latest.path / "model.safetensors")
    checkpoint.copy_tensors({name: getattr(state, name) for name in BUFFERS}, buffers, path)
    checkpoint.load_optimizer(state.optimizer, saved, path, PREFIX)
    state.step = latest.step
    state.epoch, state.batch = latest.progress["epoch"], latest.progress["batch"]
    run.rewind(state.step)


if __name__ == "__main__":
    cli.main(main)
