"""Trains an embedding: python clusterloss_tf/train.py --config cifar10.yml"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import logging
import math
import time
from collections.abc import Callable, Iterator

import numpy as np

from clusterloss_tf import config, data, evaluate, kmeans, loss, model
from common import UserError, cli, datasets, duplicates, malloc_tuning, metrics
from common.run import Run
from common.tf import checkpoint, keras, tf
from common.tf.device import device_name

log = logging.getLogger("clusterloss_tf.train")

SECONDS_BETWEEN_CHECKPOINTS = 30.0
STEPS_BETWEEN_LOGS = 10
MAX_GRADIENT_NORM = 5.0  # with reduction sum, the first gradients are a hundred times larger
MAX_MONITORED = 1000  # test images whose Recall@1 is logged after each epoch
EMBED_BATCH_SIZE = 256


class State:
    """Training state saved in checkpoints."""

    def __init__(self, cfg: config.Config, images: np.ndarray, labels: np.ndarray):
        """The state before the first step on images (n, h, w, c) and labels (n,)."""
        training, seed = cfg.training, cfg.training.seed
        malloc_tuning.disable_trimming()
        self.cfg, self.step, self.epoch, self.batch = cfg, 0, 0, 0
        self.classes, self.labels = np.unique(labels, return_inverse=True)
        self.net = model.build(cfg.model, images.shape[1:], seed)
        self.net.get_layer("standardize").adapt(images)
        self.loss = build_loss(cfg, len(self.classes))
        self.groups = None
        if training.sampler == "superclasses":
            self.groups = data.superclasses(cfg.dataset.name, labels)
        if training.optimizer == "sgd":
            self.optimizer = keras.optimizers.SGD(training.lr, 0.9, nesterov=True)
        else:
            decay = training.weight_decay or None
            self.optimizer = keras.optimizers.Adam(training.lr, weight_decay=decay)
            if decay:
                excluded = ["gamma", "beta", "bias", "class_vectors"]
                self.optimizer.exclude_from_weight_decay(var_names=excluded)
        self.loss_variables = getattr(self.loss, "trainable_variables", [])  # class vectors
        self.trainable_variables = [*self.net.trainable_variables, *self.loss_variables]
        self.optimizer.build(self.trainable_variables)
        p, m = data.batch_shape(len(self.classes), training.batch_size, training.images_per_class)
        self.n_batches = max(1, len(labels) // (p * m))  # per epoch

    @property
    def other_variables(self) -> dict[str, keras.Variable]:
        """The variables of a checkpoint that are not the network's."""
        return model.by_name([*self.optimizer.variables, *self.loss_variables])

    @tf.function(reduce_retracing=True)
    def update(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """One optimizer step -> the loss before it."""
        training = self.cfg.training
        images = data.to_float(images)
        if training.augment != "none":
            seed = tf.stack([tf.constant(training.seed % 2**31, tf.int32), step])
            images = data.augment(images, training.augment, seed)
        with tf.GradientTape() as tape:
            value = self.loss(labels, self.net(images, training=True))
        gradients = tape.gradient(value, [variable.value for variable in self.trainable_variables])
        gradients, _ = tf.clip_by_global_norm(gradients, MAX_GRADIENT_NORM)
        if training.optimizer == "sgd":
            # Keras' own decay of SGD skips the momentum and is about a tenth of this one
            pairs = zip(gradients, self.trainable_variables, strict=True)
            gradients = [slope + training.weight_decay * v for slope, v in pairs]
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return value

    @tf.function(reduce_retracing=True)
    def _embed(self, images: tf.Tensor) -> tf.Tensor:
        return self.net(data.to_float(images), training=False)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Images (n, h, w, c) -> embeddings (n, dim) float32."""
        return embed(self._embed, images)


def embed(network: Callable, images: np.ndarray) -> np.ndarray:
    """Images (n, h, w, c) -> embeddings (n, dim) float32; raises UserError for NaN or infinity."""
    starts = range(0, len(images), EMBED_BATCH_SIZE)
    parts = [np.asarray(network(images[i : i + EMBED_BATCH_SIZE])) for i in starts]
    embeddings = np.concatenate(parts)
    if not np.isfinite(embeddings).all():
        raise UserError("the embeddings became NaN or infinite: lower training.lr")
    return embeddings


def build_loss(cfg: config.Config, n_classes: int) -> keras.losses.Loss:
    training = cfg.training
    reduction = "sum" if training.reduction == "sum" else "sum_over_batch_size"
    if training.loss == "facility":
        return loss.FacilityLocationLoss(
            training.gamma, training.refine, training.margin, training.nmi_average, reduction
        )
    options: dict = {"mining": "hard"} if training.loss == "triplet_hard" else {}
    if training.loss in ("proxy_anchor", "softmax"):
        options = {"n_classes": n_classes, "dim": cfg.model.dim, "seed": training.seed}
    kind = training.loss.removesuffix("_hard")
    return loss.BaselineLoss(kind, reduction=reduction, **options)


def main() -> tuple[config.Config, Run]:
    """Trains; the config and the finished run."""
    cfg, run = cli.start(config.Config, __file__)
    with run:
        train_set, test_set = data.load(cfg.dataset)
        run.check_dataset(train_set.checksum)
        check_n_clusters(cfg, test_set)
        n_test_classes = len(np.unique(test_set.labels))
        run.note(
            dataset_checksum=train_set.checksum,
            device=device_name(),
            image_shape=train_set.images.shape[1:],
            n_classes=n_test_classes,
        )
        state = State(cfg, train_set.images, train_set.labels)
        counts = len(train_set.labels), len(state.classes), len(test_set.labels), n_test_classes
        log.info("training on %d images of %d classes, testing on %d of %d", *counts)
        if cfg.model.trunk:
            load_trunk(state.net, cfg.model.trunk)
        resume(run, state)
        if state.step == 0:
            if message := few_distinct(cfg, train_set, test_set):
                log.warning("%s", message)
            write_baseline(run, cfg, test_set)
        saved = time.monotonic()
        for _ in run.epochs(state.epoch, cfg.training.n_epochs):
            for _ in train_epoch(state, train_set.images, run):
                if state.batch < state.n_batches and run.stopping:
                    save(run, state)
                    run.stop()
            log_epoch(run, state, test_set)
            stopping = run.stopping
            if stopping or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                save(run, state)
                saved = time.monotonic()
            if stopping:
                run.stop()
        save(run, state)
    return cfg, run


def check_n_clusters(cfg: config.Config, test_set: datasets.Images) -> None:
    """Raises UserError if there are fewer test images than clusters."""
    k, n = cfg.model.n_clusters, len(test_set.labels)
    if k and k > n:
        raise UserError(f"model.n_clusters is {k}, but there are only {n} test images")


def few_distinct(cfg: config.Config, train_set: datasets.Images, test_set: datasets.Images) -> str:
    """The warning of `duplicates.few_distinct` for the classes or for the clusters, else ""."""
    n_classes = len(np.unique(train_set.labels))
    k = cfg.model.n_clusters or len(np.unique(test_set.labels))
    message = duplicates.few_distinct(train_set.images, n_classes)
    return message or duplicates.few_distinct(test_set.images, k)


def train_epoch(state: State, images: np.ndarray, run: Run | None = None) -> Iterator[float]:
    """Trains on images (n, h, w, c) from state.batch to the end of the epoch.

    Yields the loss after each step, when it is safe to stop. Logs to `run` if it is given.
    """
    training = state.cfg.training
    batches = data.batches(
        state.labels,
        training.batch_size,
        training.images_per_class,
        training.seed,
        state.epoch,
        state.groups,
    )
    n_images, began = 0, time.perf_counter()
    for i, indices in enumerate(batches):
        if i < state.batch:
            continue
        value = train_step(state, images[indices], state.labels[indices])
        n_images += len(indices)
        if run and (state.step % STEPS_BETWEEN_LOGS == 0 or state.batch == state.n_batches):
            rate = round(n_images / (time.perf_counter() - began), 1)
            run.log("train", state.step, epoch=state.epoch, loss=value, images_per_second=rate)
            n_images, began = 0, time.perf_counter()
        yield value
    state.epoch, state.batch = state.epoch + 1, 0


def train_step(state: State, images: np.ndarray, labels: np.ndarray) -> float:
    """One step on images (b, h, w, c), labels (b,) -> the loss; raises UserError if it is NaN."""
    progress = state.step / (state.cfg.training.n_epochs * state.n_batches)
    state.optimizer.learning_rate.assign(learning_rate(state.cfg.training, progress))
    value = float(state.update(images, labels, tf.constant(state.step)))
    state.step += 1
    state.batch += 1
    if not math.isfinite(value):
        raise UserError(f"the loss became {value} at step {state.step}: lower training.lr")
    return value


def learning_rate(training: config.Training, progress: float) -> float:
    """The learning rate at a fraction `progress` of the training."""
    if progress < training.warmup:
        return training.lr * (0.01 + 0.99 * progress / training.warmup)
    if training.milestones:
        return training.lr * 0.1 ** sum(progress >= milestone for milestone in training.milestones)
    fraction = (progress - training.warmup) / (1 - training.warmup)
    return training.lr * 0.5 * (1 + math.cos(math.pi * fraction))


def log_epoch(run: Run, state: State, test_set: datasets.Images) -> None:
    """Logs Recall@1 of up to MAX_MONITORED test images; only to watch, it selects nothing."""
    n = len(test_set.labels)
    rows = np.linspace(0, n - 1, min(MAX_MONITORED, n)).astype(int)
    embeddings = state.embed(test_set.images[rows])
    recall = metrics.recall_at_k(embeddings, test_set.labels[rows], [1])[1]
    run.log("test", state.step, epoch=state.epoch, recall_at_1=recall)
    text = "epoch %d of %d: Recall@1 of %d test images %.4f"
    log.info(text, state.epoch, state.cfg.training.n_epochs, len(rows), recall)


def write_baseline(run: Run, cfg: config.Config, test_set: datasets.Images) -> None:
    """Writes the scores of the raw pixels of the test images to baseline.json."""
    pixels = test_set.images.reshape(len(test_set.images), -1).astype(np.float32) / 255
    k = cfg.model.n_clusters or len(np.unique(test_set.labels))
    clusters = kmeans.clusters(pixels, k)[0]
    arrays = {"embeddings": pixels, "labels": test_set.labels, "kmeans": clusters}
    scores = evaluate.evaluate(arrays)
    run.write_json("baseline.json", {"name": "raw pixels"} | scores)
    log.info("baseline: raw pixels, Recall@1 %.4f, NMI %.4f", scores["recall_at_1"], scores["nmi"])


def load_trunk(net: keras.Model, trunk: str) -> None:
    """Loads all layers but the embedding from a run's latest checkpoint; raises UserError."""
    path = Run.open(Path(trunk)).require_checkpoint().path / "model.weights.h5"
    variables = model.by_name(net.variables)
    kept = {name: v for name, v in variables.items() if not name.startswith("embedding.")}
    checkpoint.load(path, kept, allow_extra=True)


def save(run: Run, state: State) -> None:
    """Saves a checkpoint; raises UserError, and keeps the one before, if a variable is NaN."""
    files = {
        "model.weights.h5": lambda path: checkpoint.save(path, model.by_name(state.net.variables)),
        "state.h5": lambda path: checkpoint.save(path, state.other_variables),
    }
    run.checkpoint(state.step, files, epoch=state.epoch, batch=state.batch)


def resume(run: Run, state: State) -> None:
    """Loads the latest checkpoint, if there is one, so that training continues exactly."""
    latest = run.latest_checkpoint()
    if latest is None:
        run.rewind()
        return
    checkpoint.load(latest.path / "model.weights.h5", model.by_name(state.net.variables))
    checkpoint.load(latest.path / "state.h5", state.other_variables)
    state.step = latest.step
    state.epoch, state.batch = map(latest.progress.get, ("epoch", "batch"))
    run.rewind(state.step)


if __name__ == "__main__":
    cli.main(main)
