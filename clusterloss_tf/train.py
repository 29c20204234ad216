"""Trains an embedding: python clusterloss_tf/train.py --config cifar10.yml"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import math
import os
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: it greets in six lines
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # half the time of a step where it is not on

from common.tf import quiet

with quiet.stderr():
    import keras
    import tensorflow as tf
import numpy as np

from clusterloss_tf import config, data, evaluate, kmeans, loss, model
from common import UserError, cli, datasets, hdf5, malloc_tuning, metrics
from common.run import Run

log = logging.getLogger("clusterloss_tf.train")

SECONDS_BETWEEN_CHECKPOINTS = 30.0
STEPS_BETWEEN_LOGS = 10
MAX_NORM = 5.0  # of the gradient; sums over a batch would start with steps a hundred times larger
N_WATCHED = 1000  # test images whose Recall@1 is in the curves
BATCH = 256  # images that are embedded at once


class State:
    """All that a training is at one moment: what a checkpoint holds."""

    def __init__(self, cfg: config.Config, images: np.ndarray, labels: np.ndarray):
        """Before the first step on images (n, h, w, c) of labels (n,)."""
        training, seed = cfg.training, cfg.training.seed
        malloc_tuning.disable_trimming()
        self.cfg, self.step, self.epoch, self.batch = cfg, 0, 0, 0
        self.classes, self.labels = np.unique(labels, return_inverse=True)
        self.net = model.build(cfg.model, images.shape[1:], seed)
        self.net.get_layer("standardise").measure(images)
        self.loss = build_loss(cfg, len(self.classes))
        self.groups = None
        if training.sampler == "superclasses":
            self.groups = data.superclasses(cfg.dataset.name, labels)
        decay = training.weight_decay or None
        if training.optimizer == "adam":
            self.optimizer = keras.optimizers.Adam(training.lr, weight_decay=decay)
        else:
            self.optimizer = keras.optimizers.SGD(training.lr, 0.9, True, weight_decay=decay)
        if decay:
            others = ["gamma", "beta", "bias", "class_vectors"]
            self.optimizer.exclude_from_weight_decay(var_names=others)
        self.own = getattr(self.loss, "trainable_variables", [])  # vectors of classes
        self.trained = [*self.net.trainable_variables, *self.own]
        self.optimizer.build(self.trained)
        p, m = data.batch_shape(len(self.classes), training.batch_size, training.images_per_class)
        self.n_batches = max(1, len(labels) // (p * m))  # of an epoch

    @property
    def moments(self) -> dict[str, keras.Variable]:
        """What a checkpoint holds beside the network."""
        return model.by_name([*self.optimizer.variables, *self.own])

    @tf.function(reduce_retracing=True)
    def update(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """One step of the optimiser -> the loss before it."""
        training = self.cfg.training
        images = data.to_float(images)
        if training.augment != "none":
            seed = tf.stack([tf.constant(training.seed % 2**31, tf.int32), step])
            images = data.augment(images, training.augment, seed)
        with tf.GradientTape() as tape:
            value = self.loss(labels, self.net(images, training=True))
        gradients, _ = tf.clip_by_global_norm(
            tape.gradient(value, [variable.value for variable in self.trained]), MAX_NORM
        )
        self.optimizer.apply_gradients(zip(gradients, self.trained, strict=True))
        return value

    @tf.function(reduce_retracing=True)
    def _embed(self, images: tf.Tensor) -> tf.Tensor:
        return self.net(data.to_float(images), training=False)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Images (n, h, w, c) -> embeddings (n, dim) float32, in their order."""
        return embed(self._embed, images)


def embed(network: Callable, images: np.ndarray) -> np.ndarray:
    """Images (n, h, w, c) -> embeddings (n, dim) float32; raises UserError if one is NaN."""
    parts = [network(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    embeddings = np.concatenate([np.asarray(part) for part in parts])
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
    return loss.CompanionLoss(kind, reduction=reduction, **options)


def main() -> None:
    cfg, run = cli.start(config.Config, __file__)
    with run:
        found, test = data.load(cfg.dataset)
        if run.meta.get("dataset_checksum", found.checksum) != found.checksum:
            raise UserError("the data set is not what it was when the run began: start a new run")
        check(cfg, test)
        run.note(
            dataset_checksum=found.checksum,
            device=device(),
            image_shape=found.images.shape[1:],
            n_classes=len(np.unique(test.labels)),
        )
        state = State(cfg, found.images, found.labels)
        log.info(
            "training on %d images of %d classes, testing on %d of %d",
            len(found.labels), len(state.classes), len(test.labels), len(np.unique(test.labels)),
        )  # fmt: skip
        if cfg.model.trunk:
            warm_start(state.net, cfg.model.trunk)
        resume(run, state)
        if state.step == 0:
            write_baseline(run, cfg, test)
        saved = time.monotonic()
        for _ in run.epochs(state.epoch, cfg.training.n_epochs):
            for _ in train_epoch(state, found.images, run):
                if state.batch < state.n_batches and run.stopping:
                    save(run, state)
                    run.stop()
            log_epoch(run, state, test)
            stopping = run.stopping
            if stopping or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                save(run, state)
                saved = time.monotonic()
            if stopping:
                run.stop()
        save(run, state)


def check(cfg: config.Config, test: datasets.Images) -> None:
    """Raises UserError where the test images are too few for the clusters that are asked for."""
    k, n = cfg.model.n_clusters, len(test.labels)
    if k and k > n:
        raise UserError(f"model.n_clusters is {k}, but there are only {n} test images")


def device() -> str:
    """What TensorFlow computes on; one line where CUDA_VISIBLE_DEVICES names what is not there."""
    if tf.config.list_physical_devices("GPU"):
        return "GPU"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "") not in ("", "-1"):
        name = os.environ["CUDA_VISIBLE_DEVICES"]
        log.info("CUDA=%s: no such GPU here, going on with the CPU", name)
    return "CPU"


def train_epoch(state: State, images: np.ndarray, run: Run | None = None) -> Iterator[float]:
    """An epoch from state.batch on; yields the loss after each step, when it is safe to stop."""
    training = state.cfg.training
    chosen = data.batches(
        state.labels, training.batch_size, training.images_per_class, training.seed, state.epoch,
        state.groups,
    )  # fmt: skip
    n_images, began = 0, time.perf_counter()
    for i, batch in enumerate(chosen):
        if i < state.batch:
            continue
        value = train_step(state, images[batch], state.labels[batch])
        n_images += len(batch)
        if run and (state.step % STEPS_BETWEEN_LOGS == 0 or state.batch == state.n_batches):
            rate = round(n_images / (time.perf_counter() - began), 1)
            run.log("train", state.step, epoch=state.epoch, loss=value, images_per_second=rate)
            n_images, began = 0, time.perf_counter()
        yield value
    state.epoch, state.batch = state.epoch + 1, 0


def train_step(state: State, images: np.ndarray, labels: np.ndarray) -> float:
    """One step on images (b, h, w, c) of labels (b,) -> the loss; raises UserError if it is NaN."""
    done = state.step / (state.cfg.training.n_epochs * state.n_batches)
    state.optimizer.learning_rate.assign(learning_rate(state.cfg.training, done))
    value = float(state.update(images, labels, tf.constant(state.step)))
    state.step += 1
    state.batch += 1
    if not math.isfinite(value):
        raise UserError(f"the loss became {value} at step {state.step}: lower training.lr")
    return value


def learning_rate(training: config.Training, done: float) -> float:
    """The rate when the share `done` of the training is over."""
    if done < training.warmup:
        return training.lr * (0.01 + 0.99 * done / training.warmup)
    if training.milestones:
        return training.lr * 0.1 ** sum(done >= share for share in training.milestones)
    share = (done - training.warmup) / (1 - training.warmup)
    return training.lr * 0.5 * (1 + math.cos(math.pi * share))


def log_epoch(run: Run, state: State, test: datasets.Images) -> None:
    """Logs Recall@1 of some of the test images: to watch, nothing is chosen by it."""
    some = np.linspace(0, len(test.labels) - 1, min(N_WATCHED, len(test.labels))).astype(int)
    embeddings = state.embed(test.images[some])
    recall = metrics.recall_at_k(embeddings, test.labels[some], [1])[1]
    run.log("test", state.step, epoch=state.epoch, recall_at_1=recall)
    log.info(
        "epoch %d of %d: Recall@1 of %d test images %.4f",
        state.epoch, state.cfg.training.n_epochs, len(some), recall,
    )  # fmt: skip


def write_baseline(run: Run, cfg: config.Config, test: datasets.Images) -> None:
    """The scores of the test images' raw pixels, the first result: what training has to beat."""
    pixels = test.images.reshape(len(test.images), -1).astype(np.float32) / 255
    clusters = kmeans.clusters(pixels, cfg.model.n_clusters or len(np.unique(test.labels)))[0]
    scores = evaluate.evaluate({"embeddings": pixels, "labels": test.labels, "kmeans": clusters})
    run.write_json("baseline.json", {"name": "raw pixels"} | scores)
    log.info("baseline: raw pixels, Recall@1 %.4f, NMI %.4f", scores["recall_at_1"], scores["nmi"])


def warm_start(net: keras.Model, trunk: str) -> None:
    """Takes over the latest network of another run, but for its embedding; raises UserError."""
    checkpoint = Run.open(Path(trunk)).latest_checkpoint()
    if checkpoint is None:
        raise UserError(f"model.trunk {trunk} has no checkpoint")
    path = checkpoint.path / "model.weights.h5"
    found, wanted = hdf5.read(path), model.by_name(net.variables)
    kept = {name: value for name, value in wanted.items() if not name.startswith("embedding.")}
    for name, variable in kept.items():
        if name not in found or found[name].shape != tuple(variable.shape):
            raise UserError(
                f"model.trunk {trunk} is of another model: "
                f"{name} is {found[name].shape if name in found else 'absent'}, "
                f"the config expects {tuple(variable.shape)}"
            )
    for name, variable in kept.items():
        variable.assign(found[name])


def save(run: Run, state: State) -> None:
    """Writes a checkpoint; raises UserError, and leaves the one before, if a weight is NaN."""
    files = {"model.weights.h5": model.by_name(state.net.variables), "state.h5": state.moments}
    arrays = {
        name: {key: np.asarray(variable) for key, variable in variables.items()}
        for name, variables in files.items()
    }
    run.checkpoint(
        state.step,
        {name: lambda path, of=name: hdf5.save(path, arrays[of]) for name in arrays},
        epoch=state.epoch,
        batch=state.batch,
    )


def load(path: Path, variables: dict[str, keras.Variable]) -> None:
    """Fills variables with what `save` wrote; raises UserError with the first difference."""
    saved = hdf5.load(path, variables)
    for name, variable in variables.items():
        variable.assign(saved[name])


def resume(run: Run, state: State) -> None:
    """Goes on from the latest checkpoint of the run, if there is one, as if never stopped."""
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        run.rewind()
        return
    load(checkpoint.path / "model.weights.h5", model.by_name(state.net.variables))
    load(checkpoint.path / "state.h5", state.moments)
    state.step = checkpoint.step
    state.epoch, state.batch = map(checkpoint.progress.get, ("epoch", "batch"))
    run.rewind(state.step)


if __name__ == "__main__":
    cli.main(main)
