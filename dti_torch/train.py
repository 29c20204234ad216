"""Trains DTI clustering: python dti_torch/train.py --config mnist_test.yml"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from common import UserError, cli, malloc_tuning, metrics
from common.run import Run
from dti_torch import cluster, config, data, model, pictures

log = logging.getLogger("dti_torch.train")

SECONDS_BETWEEN_CHECKPOINTS = 30.0
CHECKS_TO_SETTLE = 8


@dataclass
class State:
    """All that a training is at one moment: what a checkpoint holds."""

    net: model.DTI
    optimizer: torch.optim.Optimizer
    winners: Tensor  # (n,) int, of this epoch; -1 where an image was not met yet
    usage: Tensor  # (3, k) of cluster.usage, since the last look for empty clusters
    settling: Tensor  # (k,) looks until a reassigned cluster may move again
    losses: Tensor  # (2,) summed over the steps since that look, and over the images of this epoch
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0


def main() -> None:
    cfg, run = cli.start(config.Config, __file__)
    with run:
        dataset = data.load(cfg.dataset)
        if run.meta.get("dataset_checksum", dataset.checksum) != dataset.checksum:
            raise UserError("the data set is not what it was when the run began: start a new run")
        images = data.to_device(dataset.images, device())
        run.note(dataset_checksum=dataset.checksum, device=str(images.device))
        state = begin(cfg, images)
        resume(run, state)
        if state.step == 0:
            write_baseline(run, cfg, images, dataset.labels)
        saved = time.monotonic()
        for epoch in run.epochs(state.epoch, cfg.training.n_epochs):
            for _ in train_epoch(cfg, state, images, run):
                if run.stopping:
                    save(run, state)
                    run.stop()
            log.info(
                "epoch %d of %d: %s",
                epoch + 1,
                cfg.training.n_epochs,
                log_epoch(run, state, dataset.labels),
            )
            pictures.snapshot(run, state.net, images, epoch, cfg.training.n_epochs)
            is_last = state.epoch == cfg.training.n_epochs
            if is_last or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                save(run, state)
                saved = time.monotonic()


def device() -> torch.device:
    """The first visible GPU, else the CPU, with one line where CUDA_VISIBLE_DEVICES is set."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("CUDA_VISIBLE_DEVICES", "") not in ("", "-1"):
        log.info(
            "CUDA=%s: no such GPU here, going on with the CPU", os.environ["CUDA_VISIBLE_DEVICES"]
        )
    return torch.device("cpu")


def begin(cfg: config.Config, images: Tensor) -> State:
    """The state before the first step on images uint8 (n, c, h, w); raises UserError if too few."""
    n, k = len(images), cfg.model.n_prototypes
    if n < 2:
        raise UserError(f"there is only {n} image: clustering needs two")
    if k > n:
        raise UserError(f"model.n_prototypes is {k}, but there are only {n} images")
    malloc_tuning.disable_trimming()
    torch.manual_seed(cfg.training.seed)
    prototypes = cluster.initial_prototypes(images, cfg.model, cfg.training.seed)
    net = model.build(cfg.model, prototypes).to(images.device)
    if cfg.model.name == "dtigmm" and cfg.model.init == "kmeans":
        net.sigmas.data = cluster.initial_sigmas(images, prototypes, cfg.model.var_min).to(
            images.device
        )
    net.encoder_dtype = model.encoder_dtype(cfg.training.precision, images.device)
    of_clusters = ("prototypes", "sigmas", "mixing_logits")
    groups: list[dict] = [
        {"params": [p for name, p in net.named_parameters() if name in of_clusters]},
        {
            "params": [p for name, p in net.named_parameters() if name not in of_clusters],
            "weight_decay": cfg.training.weight_decay,
        },
    ]
    optimizer = torch.optim.Adam(groups, cfg.training.lr, fused=True)
    return State(
        net,
        optimizer,
        winners=torch.full((n,), -1, device=images.device),
        usage=torch.zeros(3, k, device=images.device),
        settling=torch.zeros(k, device=images.device),
        losses=torch.zeros(2, device=images.device),
    )


def train_epoch(
    cfg: config.Config, state: State, images: Tensor, run: Run | None = None
) -> Iterator[None]:
    """Trains on every image once, from state.batch on; yields after each step: safe to stop."""
    training = cfg.training
    starts = cfg.model.starts(training.n_epochs)
    state.net.n_active = 1 + sum(state.epoch >= start for start in starts)
    if state.batch == 0:
        state.winners.fill_(-1)
        state.losses[1] = 0
    began, n_done = time.perf_counter(), 0
    for batch, chosen in data.batches(
        images, training.batch_size, training.seed, state.epoch, state.batch
    ):
        done = state.epoch + state.batch * training.batch_size / len(images)
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(training, done)
        loss, distances = train_step(state, batch)
        state.winners[chosen] = distances.argmin(1)
        state.usage += cluster.usage(distances)
        state.losses += loss * torch.tensor([1.0, len(batch)], device=images.device)
        state.batch += 1
        state.step += 1
        n_done += len(batch)
        if state.step % training.check_interval == 0:
            check(cfg, state, run, n_done / (time.perf_counter() - began))
            began, n_done = time.perf_counter(), 0
        yield
    state.epoch, state.batch = state.epoch + 1, 0


def train_step(state: State, images: Tensor) -> tuple[Tensor, Tensor]:
    """One step of Adam on images (b, c, h, w) -> the loss, and the distances (b, k) before it."""
    try:
        loss, distances = state.net.loss(images)
    except UserError as error:
        raise UserError(f"step {state.step + 1}: {error}") from None
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    return loss.detach(), distances


def learning_rate(training: config.Training, done: float) -> float:
    """The rate when `done` epochs are over: steps at the milestones, then a cosine to zero."""
    rate = training.lr * training.gamma ** sum(done >= m for m in training.milestones)
    if training.cosine_from is None:
        return rate
    start = config.epochs(training.cosine_from, training.n_epochs)
    # a training that ends before the start keeps its rate
    share = min(max((done - start) / max(training.n_epochs - start, 1e-9), 0.0), 1.0)
    return rate * 0.5 * (1 + math.cos(math.pi * share))


def check(cfg: config.Config, state: State, run: Run | None, images_per_second: float) -> None:
    """Logs, and moves empty and redundant prototypes to where they help, every `check_interval`."""
    shares = state.usage[0] / state.usage[0].sum()
    if run:
        run.log(
            "train",
            state.step,
            epoch=state.epoch,
            loss=float(state.losses[0]) / cfg.training.check_interval,
            images_per_second=round(images_per_second, 1),
            **{f"proportion/{k}": round(share, 5) for k, share in enumerate(shares.tolist())},
        )
    threshold = cfg.model.empty_cluster_threshold or 0.2 / len(shares)
    empty = torch.nonzero(shares < threshold).flatten().tolist()
    state.settling -= 1
    if cfg.model.reassign_empty and empty:
        reassign(cfg, state, empty, int(shares.argmax()), "empty")
    elif cfg.model.redundancy and state.net.n_active < len(state.net.transformations):
        found = cluster.find_redundant(state.usage, state.settling, cfg.model.redundancy)
        if found:
            reassign(cfg, state, [found[0]], found[1], "redundant")
    state.usage.zero_()
    state.losses[0] = 0


def reassign(cfg: config.Config, state: State, clusters: list[int], donor: int, why: str) -> None:
    generator = torch.Generator().manual_seed(cfg.training.seed * 1_000_003 + state.step)
    cluster.reassign(state.net, state.optimizer, clusters, donor, generator)
    state.settling[[*clusters, donor]] = CHECKS_TO_SETTLE
    log.info(
        "step %d: %s clusters %s start again as copies of %d", state.step, why, clusters, donor
    )


def log_epoch(run: Run, state: State, labels: np.ndarray | None) -> str:
    """Logs the epoch's mean loss, and with labels the scores of the winners while training."""
    values = {"loss": float(state.losses[1]) / len(state.winners)}
    if labels is not None:
        clusters = state.winners.cpu().numpy()
        values["acc"] = metrics.clustering_accuracy(labels, clusters)
        values["nmi"] = metrics.nmi(labels, clusters)
    run.log("epoch", state.step, epoch=state.epoch, transformations=state.net.n_active, **values)
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def write_baseline(run: Run, cfg: config.Config, images: Tensor, labels: np.ndarray | None) -> None:
    """Plain k-means on the pixels, the first result: what the training has to beat."""
    clusters = cluster.pixel_kmeans(images, cfg.model.n_prototypes, cfg.training.seed)
    np.savez_compressed(run.path / "baseline.npz", clusters=clusters)
    if labels is None:
        log.info(
            "baseline: k-means on pixels, clusters of %s images", np.bincount(clusters).tolist()
        )
    else:
        acc, nmi = metrics.clustering_accuracy(labels, clusters), metrics.nmi(labels, clusters)
        log.info("baseline: k-means on pixels, acc %.4f, nmi %.4f", acc, nmi)


def save(run: Run, state: State) -> None:
    """Writes a checkpoint; raises UserError, and leaves the one before, if a weight is NaN."""
    tensors = {name: getattr(state, name) for name in ("winners", "usage", "settling", "losses")}
    for i, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"{i}.{name}": value.contiguous() for name, value in moments.items()}
    weights = {name: value.contiguous() for name, value in state.net.state_dict().items()}
    for name, value in weights.items():
        if not value.isfinite().all():
            raise UserError(f"{name} became NaN or infinite at step {state.step}")
    run.checkpoint(
        state.step,
        {
            "model.safetensors": lambda path: save_file(weights, path),
            "state.safetensors": lambda path: save_file(tensors, path),
        },
        epoch=state.epoch,
        batch=state.batch,
    )


def resume(run: Run, state: State) -> None:
    """Goes on from the latest checkpoint of the run, if there is one, as if never stopped."""
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        run.rewind()
        return
    model.load(state.net, checkpoint.path / "model.safetensors")
    path = checkpoint.path / "state.safetensors"
    tensors, names = model.read(path), ("winners", "usage", "settling", "losses")
    saved = {name: tensors.pop(name) for name in names if name in tensors}
    model.fill({name: getattr(state, name) for name in names}, saved, path)
    groups = state.optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        i, name = key.split(".")
        if value.ndim:  # the fused Adam reads raw memory: it must lie as the parameter does
            value = torch.empty_like(parameters[int(i)]).copy_(value)
        moments.setdefault(int(i), {})[name] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    state.step, state.epoch, state.batch = (
        checkpoint.step,
        *map(checkpoint.progress.get, ("epoch", "batch")),
    )
    run.rewind(state.step)


if __name__ == "__main__":
    cli.main(main)
