"""Learns features and clusters of images: python deepcluster_torch/train.py --config folder.yml"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import csv
import json
import logging
import math
import time
from collections.abc import Iterator

import numpy as np
import torch

from common import UserError, cli, duplicates, metrics, report
from common.pytorch.device import select_device
from common.run import Run
from deepcluster_torch import config, evaluate
from deepcluster_torch.cluster import final
from deepcluster_torch.data import loading
from deepcluster_torch.data.batches import batch_bounds, batches
from deepcluster_torch.evaluation import baseline, outputs
from deepcluster_torch.model import features
from deepcluster_torch.modes import checkpoints, frozen, v1, v2
from deepcluster_torch.modes.state import State, choose_mode, initial_state

log = logging.getLogger("deepcluster_torch.train")

SECONDS_BETWEEN_CHECKPOINTS = 30.0
STEPS_BETWEEN_LOGS = 10
MIN_SPREAD = 0.1  # spread of the features below which they have collapsed
COLUMNS = "epoch step loss lr n_used balance spread nmi_previous nmi purity".split()


def main() -> None:
    cfg, run = cli.start(config.Config, __file__)
    with run:
        train(cfg, run)
    log.info("report: %s", report.write_report(run.path))


def train(cfg: config.Config, run: Run) -> None:
    """Trains on the images of the config, or resumes, and clusters all of them at the end."""
    dataset, _ = loading.load(cfg.dataset)
    run.check_dataset(dataset.checksum)
    n, *shape = dataset.images.shape
    mode, reason = choose_mode(cfg.model, n)
    log.info("mode %s: %s", mode, reason)
    is_new = run.latest_checkpoint() is None
    state = initial_state(cfg, mode, n, tuple(shape), select_device(), load_weights=is_new)
    run.note(dataset_checksum=dataset.checksum, device=str(state.device), mode=mode)
    run.note(n_images=n, image_shape=shape)
    checkpoints.resume(cfg.training, run, state)
    message = duplicates.few_distinct(dataset.images, cfg.model.n_clusters)
    if message and is_new:
        log.warning("%s", message)
    run.note(has_few_distinct_images=bool(message))
    state.warned_of_collapse = bool(message)  # which follows from it
    if state.step == 0:
        baseline.write(run, cfg, dataset)
    if mode == "frozen":
        values = frozen.cached_features(cfg, state, dataset)
    else:
        train_epochs(cfg, state, dataset.images, run, dataset.labels)
        values = features.extract(state.net, dataset.images, cfg)
    clustering = final.fit(values, cfg)
    checkpoints.save(run, state, clustering._asdict())
    outputs.write(run.path, dataset, clustering.assign(values), clustering.n_groups)
    if state.seconds:
        log.info("seconds: %s", ", ".join(f"{k} {v:.1f}" for k, v in state.seconds.items()))
        run.note(stage_seconds={name: round(s, 1) for name, s in state.seconds.items()})


def train_epochs(
    cfg: config.Config, state: State, images: np.ndarray, run: Run, labels: np.ndarray | None
) -> None:
    """The remaining epochs of v1 or v2, with checkpoints; stops cleanly on a signal."""
    saved = time.monotonic()
    for _ in run.epochs(state.epoch, cfg.training.n_epochs):
        for _ in train_epoch(cfg, state, images, run, labels):
            if run.stopping:
                checkpoints.save(run, state)
                run.stop()
        log_epoch(cfg.training, state, run)
        if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            checkpoints.save(run, state)
            saved = time.monotonic()


def train_epoch(
    cfg: config.Config,
    state: State,
    images: np.ndarray,
    run: Run | None = None,
    labels: np.ndarray | None = None,
) -> Iterator[None]:
    """One epoch from state.batch on; yields after each step, when it is safe to stop.

    images uint8 (n, h, w, c); labels (n,) are only used for the logged scores.
    """
    training = cfg.training
    if state.batch == 0:
        state.losses.zero_()
        if state.epoch % training.recluster_every == 0:
            before = state.assignments.clone()
            if state.mode == "v1":
                values = v1.recluster(cfg, state, images)
            else:
                values = v2.recluster(cfg, state, images)
            log_clusters(state, values, before, run, labels)
    if state.mode == "v1":
        order = v1.epoch_order(training, state)
    else:
        order = v2.epoch_order(training, state)
    n_batches = len(list(batch_bounds(len(order), training.batch_size)))
    state.net.train()
    began, n_images = time.perf_counter(), 0
    for batch, indices in batches(images, training.batch_size, order, state.batch):
        set_learning_rates(training, state, state.epoch + state.batch / n_batches)
        torch.manual_seed(state.step_generator(training.seed).initial_seed())  # for dropout
        batch, indices = batch.to(state.device), indices.to(state.device)
        if state.mode == "v1":
            loss = v1.train_step(cfg, state, batch, indices)
        else:
            loss = v2.train_step(cfg, state, batch, indices)
        state.step += 1
        if not math.isfinite(float(loss)):
            raise UserError(
                f"the loss became {float(loss)} at step {state.step}: lower training.lr"
            )
        state.batch += 1
        state.losses += torch.stack(
            [loss.double() * len(batch), loss.new_tensor(len(batch)).double()]
        )
        n_images += len(batch)
        if run and state.step % STEPS_BETWEEN_LOGS == 0:
            seconds = time.perf_counter() - began
            run.log(
                "train",
                state.step,
                epoch=state.epoch,
                loss=float(loss),
                images_per_second=round(n_images / seconds, 1),
            )
            state.add_seconds(training=seconds)
            began, n_images = time.perf_counter(), 0
        yield
    state.add_seconds(training=time.perf_counter() - began)
    update_plateau(training, state)
    state.epoch, state.batch = state.epoch + 1, 0


# ---- learning rate


def set_learning_rates(training: config.Training, state: State, epochs: float) -> None:
    """Sets the rates of all optimizers; epochs: finished ones, with fractions."""
    for name, optimizer in state.optimizers.items():
        first = training.lr if name == "body" else training.head_lr or training.lr
        for group in optimizer.param_groups:
            group["lr"] = first * lr_factor(training, epochs, state.n_lr_drops)


def lr_factor(training: config.Training, epochs: float, n_lr_drops: int = 0) -> float:
    """The learning rate as a fraction of the first; n_lr_drops: so far, for schedule plateau."""
    progress = epochs / training.n_epochs
    if progress < training.warmup:
        start = training.warmup_start
        return start + (1 - start) * progress / training.warmup
    if training.schedule == "step":
        return training.gamma ** (int(epochs) // training.step_size)
    if training.schedule == "plateau":
        return training.gamma**n_lr_drops
    if training.schedule == "cosine":
        progress = (progress - training.warmup) / (1 - training.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return training.final_lr + (1 - training.final_lr) * cosine
    return 1.0


def update_plateau(training: config.Training, state: State) -> None:
    """Counts epochs without a lower loss; more than `patience` of them are a drop of the rate."""
    loss = mean_loss(state)
    if state.best_loss is None or loss < state.best_loss:
        state.best_loss, state.n_bad_epochs = loss, 0
        return
    state.n_bad_epochs += 1
    if state.n_bad_epochs > training.patience:
        state.n_bad_epochs, state.n_lr_drops = 0, state.n_lr_drops + 1


def mean_loss(state: State) -> float:
    return float(state.losses[0] / state.losses[1])


# ---- logs


def log_clusters(
    state: State,
    values: dict[str, float],
    before: torch.Tensor,
    run: Run | None,
    labels: np.ndarray | None,
) -> None:
    """Logs scores of the new pseudo-labels, and warns once if they have collapsed.

    before (h, n): the previous pseudo-labels. The scores are logged under the following step, so
    that a resumed run that clusters again replaces them.
    """
    clusters, previous = state.assignments.cpu().numpy(), before.cpu().numpy()
    sizes = np.bincount(clusters[0])
    values |= {"n_used": int((sizes > 0).sum()), "balance": evaluate.balance(sizes)}
    if previous.min() >= 0:
        pairs = zip(previous, clusters, strict=True)
        values["nmi_previous"] = float(np.mean([metrics.nmi(old, new) for old, new in pairs]))
    if labels is not None:
        values["nmi"] = metrics.nmi(labels, clusters[0])
        values["purity"] = metrics.purity(labels, clusters[0])
    if run:
        run.log("clusters", state.step + 1, epoch=state.epoch, **values)
    text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    log.info("epoch %d: clusters: %s", state.epoch + 1, text)
    is_collapsed = values["spread"] < MIN_SPREAD or values["balance"] < evaluate.MIN_BALANCE
    if is_collapsed and not state.warned_of_collapse:
        state.warned_of_collapse = True
        log.warning(
            "epoch %d: collapse (spread of the features %.3f, balance of the clusters %.3f): lower "
            "training.lr, use model.mode v2, or use more clusters",
            state.epoch + 1, values["spread"], values["balance"],
        )  # fmt: skip


def log_epoch(training: config.Training, state: State, run: Run) -> None:
    loss, epochs = mean_loss(state), state.epoch
    last_lr = training.lr * lr_factor(training, epochs - 1, state.n_lr_drops)
    run.log("epoch", state.step, epoch=epochs - 1, loss=loss, lr=last_lr)
    log.info("epoch %d of %d: loss %.4f", epochs, training.n_epochs, loss)
    write_epochs(run)


def write_epochs(run: Run) -> None:
    """Writes epochs.csv: the metrics of metrics.jsonl, one row per epoch."""
    rows: dict[int, dict] = {}
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        if values["split"] in ("clusters", "epoch"):
            rows.setdefault(values["epoch"], {}).update(values)
    with open(run.path / "epochs.csv", "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows.values())


if __name__ == "__main__":
    cli.main(main)
