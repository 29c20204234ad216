"""Learns features and clusters of images: python deepcluster_torch/train.py --config folder.yml"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import json
import logging
import math
import time
from collections.abc import Iterator

import numpy as np
import torch

from common import UserError, cli, metrics, report
from common.run import Run
from deepcluster_torch import (
    baseline,
    config,
    data,
    devices,
    evaluate,
    frozen,
    predictions,
    readout,
    split,
    state,
    v1,
    v2,
)  # fmt: skip
from deepcluster_torch.state import State

log = logging.getLogger("deepcluster_torch.train")

SECONDS_BETWEEN_CHECKPOINTS = 30.0
STEPS_BETWEEN_LOGS = 10
COLLAPSED = 0.1  # spread of the features below which they are all the same
COLUMNS = "epoch step loss lr n_used balance spread nmi_previous nmi purity".split()


def main() -> None:
    cfg, run = cli.start(config.Config, __file__)
    with run:
        train(cfg, run)
    log.info("gallery: %s", report.write_report(run.path))


def train(cfg: config.Config, run: Run) -> None:
    """From the images to the clusters of all of them."""
    found, _ = split.load(cfg.dataset)
    if run.meta.get("dataset_checksum", found.checksum) != found.checksum:
        raise UserError("the data set is not what it was when the run began: start a new run")
    n, *shape = found.images.shape
    mode, why = state.decide(cfg.model, n)
    log.info("mode %s: %s", mode, why)
    is_new = run.latest_checkpoint() is None
    now = state.begin(cfg, mode, n, tuple(shape), devices.device(), is_new)
    run.note(dataset_checksum=found.checksum, device=str(now.device), mode=mode)
    run.note(n_images=n, image_shape=shape)
    state.resume(cfg.training, run, now)
    if now.step == 0:
        baseline.write(run, cfg, found)
    saved = time.monotonic()
    for _ in run.epochs(now.epoch, 0 if mode == "frozen" else cfg.training.n_epochs):
        for _ in train_epoch(cfg, now, found.images, run, found.labels):
            if run.stopping:
                state.save(run, now)
                run.stop()
        log_epoch(cfg.training, now, run)
        if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            state.save(run, now)
            saved = time.monotonic()
    if mode == "frozen":
        features = frozen.features(cfg, now, found)
    else:
        features = readout.features(now.net, found.images, cfg, readout.part(cfg.model, mode))
    clusters = readout.fit(features, cfg)
    state.save(run, now, clusters._asdict())
    predictions.write(run.path, found, readout.assign(features, clusters), clusters.n_groups)
    if now.seconds:
        log.info("seconds: %s", ", ".join(f"{k} {v:.1f}" for k, v in now.seconds.items()))
        run.note(stage_seconds={name: round(s, 1) for name, s in now.seconds.items()})


def train_epoch(
    cfg: config.Config,
    now: State,
    images: np.ndarray,
    run: Run | None = None,
    labels: np.ndarray | None = None,
) -> Iterator[None]:
    """An epoch from now.batch on; yields after each step, when it is safe to stop.

    images uint8 (n, h, w, c); labels (n,) are for the curves only.
    """
    rules, training = {"v1": v1, "v2": v2}[now.mode], cfg.training
    if now.batch == 0:
        now.losses.zero_()
        if now.epoch % training.recluster_every == 0:
            before = now.assignments.clone()
            values = rules.recluster(cfg, now, images)
            log_clusters(now, values, before, run, labels)
    order = rules.order(training, now)
    n_batches = len(list(data.bounds(len(order), training.batch_size)))
    now.net.train()
    began, n_done = time.perf_counter(), 0
    for batch, chosen in data.batches(images, training.batch_size, order, now.batch):
        share = now.epoch + now.batch / n_batches
        set_rates(training, now, share)
        torch.manual_seed(now.chance(training, in_step=True).initial_seed())  # dropout
        loss = rules.train_step(cfg, now, batch.to(now.device), chosen.to(now.device))
        now.step += 1
        if not math.isfinite(float(loss)):
            raise UserError(f"the loss became {float(loss)} at step {now.step}: lower training.lr")
        now.batch += 1
        now.losses += torch.stack(
            [loss.double() * len(batch), loss.new_tensor(len(batch)).double()]
        )
        n_done += len(batch)
        if run and now.step % STEPS_BETWEEN_LOGS == 0:
            seconds = time.perf_counter() - began
            rate = round(n_done / seconds, 1)
            run.log("train", now.step, epoch=now.epoch, loss=float(loss), images_per_second=rate)
            now.count_seconds(training=seconds)
            began, n_done = time.perf_counter(), 0
        yield
    now.count_seconds(training=time.perf_counter() - began)
    watch_plateau(training, now)
    now.epoch, now.batch = now.epoch + 1, 0


def set_rates(cfg: config.Training, now: State, epochs: float) -> None:
    """Learning rates when so many epochs are over."""
    for name, optimizer in now.optimizers.items():
        first = cfg.lr if name == "body" else cfg.head_lr or cfg.lr
        for group in optimizer.param_groups:
            group["lr"] = first * rate(cfg, epochs, now.n_falls)


def rate(cfg: config.Training, epochs: float, n_falls: int = 0) -> float:
    """The learning rate as a share of the first: n_falls are those that a plateau has caused."""
    done = epochs / cfg.n_epochs
    if done < cfg.warmup:
        return 0.01 + 0.99 * done / cfg.warmup
    if cfg.schedule == "step":
        return cfg.gamma ** (int(epochs) // cfg.step_size)
    if cfg.schedule == "plateau":
        return cfg.gamma**n_falls
    if cfg.schedule == "cosine":
        share = (done - cfg.warmup) / (1 - cfg.warmup)
        return cfg.final_lr + (1 - cfg.final_lr) * 0.5 * (1 + math.cos(math.pi * share))
    return 1.0


def watch_plateau(cfg: config.Training, now: State) -> None:
    """Counts epochs without a lower loss, and after `patience` of them a fall of the rate."""
    loss = mean_loss(now)
    if now.best_loss is None or loss < now.best_loss:
        now.best_loss, now.n_stale = loss, 0
        return
    now.n_stale += 1
    if now.n_stale > cfg.patience:
        now.n_stale, now.n_falls = 0, now.n_falls + 1


def mean_loss(now: State) -> float:
    return float(now.losses[0] / now.losses[1])


def log_clusters(
    now: State,
    values: dict[str, float],
    before: torch.Tensor,
    run: Run | None,
    labels: np.ndarray | None,
) -> None:
    """Logs how the new pseudo-labels are, and warns once of a collapse.

    before (h, n): the last ones. The line has the step that follows, so that a resumed run that
    clusters once more replaces it.
    """
    clusters, last = now.assignments.cpu().numpy(), before.cpu().numpy()
    sizes = np.bincount(clusters[0])
    values |= {"n_used": int((sizes > 0).sum()), "balance": evaluate.balance(sizes)}
    if last.min() >= 0:
        pairs = zip(last, clusters, strict=True)
        values["nmi_previous"] = float(np.mean([metrics.nmi(old, new) for old, new in pairs]))
    if labels is not None:
        values["nmi"] = metrics.nmi(labels, clusters[0])
        values["purity"] = metrics.purity(labels, clusters[0])
    if run:
        run.log("clusters", now.step + 1, epoch=now.epoch, **values)
    text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    log.info("epoch %d begins: clusters' %s", now.epoch + 1, text)
    is_collapsed = values["spread"] < COLLAPSED or values["balance"] < evaluate.COLLAPSED
    if is_collapsed and not now.has_warned:
        now.has_warned = True
        log.warning(
            "epoch %d: a collapse, features spread %.3f, balance of the clusters %.3f: lower "
            "training.lr, or take model.mode v2 or more clusters",
            now.epoch, values["spread"], values["balance"],
        )  # fmt: skip


def log_epoch(cfg: config.Training, now: State, run: Run) -> None:
    loss, epochs = mean_loss(now), now.epoch
    last = cfg.lr * rate(cfg, epochs - 1, now.n_falls)
    run.log("epoch", now.step, epoch=epochs - 1, loss=loss, lr=last)
    log.info("epoch %d of %d: loss %.4f", epochs, cfg.n_epochs, loss)
    write_epochs(run)


def write_epochs(run: Run) -> None:
    """epochs.csv, one row an epoch: what metrics.jsonl has of it."""
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
