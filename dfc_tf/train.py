"""Trains feature clustering on an image: python dfc_tf/train.py --dataset.path photo.jpg"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import logging
import time

import numpy as np

from common import UserError, cli, duplicates, malloc_tuning
from common.bsds.superpixels import felzenszwalb
from common.run import Run
from common.tf import checkpoint, tf
from common.tf.device import device_name
from dfc_tf import cluster, config, data, figures, loss, model

log = logging.getLogger("dfc_tf.train")

SECONDS_BETWEEN_CHECKPOINTS = 30.0
ADAM_DECAYS, ADAM_EPSILON = (0.9, 0.999), 1e-8
HISTORY = ("similarity", "continuity", "n_labels")  # logged for every step


class State(tf.Module):
    """Training state saved in checkpoints: network, optimizer moments and progress.

    batch: index of the current batch of images; step: iterations on it; total: iterations so far.
    """

    def __init__(self, cfg: config.Config, n_channels: int):
        super().__init__()
        malloc_tuning.disable_trimming()
        self.cfg = cfg
        self.net = model.build(cfg.model, n_channels, cfg.training.seed)
        self.net.compute_dtype = model.compute_dtype(cfg.training.precision)
        n_moments = 1 if cfg.training.optimizer == "sgd" else 2
        self.moments = [
            tf.Variable(tf.zeros_like(w), trainable=False, name=f"moment_{k}_{name}")
            for k in range(n_moments)
            for name, w in model.by_name(self.net.trainable_variables).items()
        ]
        self.n_updates = tf.Variable(0, trainable=False, name="n_updates")  # of the moments
        self.step = self.total = self.batch = 0
        self.is_done = False  # with the current batch

    def begin_batch(self, batch: int) -> None:
        """Moves to another batch: resets the moments and, in mode "each", the weights."""
        if self.cfg.dataset.mode == "each":
            self.net.reset(self.cfg.training.seed)
        for variable in [*self.moments, self.n_updates]:
            variable.assign(tf.zeros_like(variable))
        self.batch, self.step, self.is_done = batch, 0, False

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, None)),
            tf.TensorSpec((None, None, None), tf.int32),
            tf.TensorSpec((None, None, None), tf.int32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.int32),
        ]
    )
    def train_steps(
        self,
        images: tf.Tensor,
        scribbles: tf.Tensor,
        superpixels: tf.Tensor,
        n_steps: tf.Tensor,
        min_labels: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Up to n_steps, fewer if only min_labels are left, in one graph for images of all sizes.

        images (b, h, w, c); scribbles (b, h, w), -1 where unmarked; superpixels (b, h, w), unused
        without model.superpixels -> HISTORY of each step (n, 3), labels (b, h, w) before the last.
        """
        images.set_shape((None, None, None, self.net.n_channels))
        history = tf.TensorArray(tf.float32, 0, dynamic_size=True, element_shape=(3,))
        labels, i, n_labels = tf.zeros_like(scribbles), 0, min_labels + 1
        while i < n_steps and n_labels > min_labels:
            labels, n_labels, values = train_step(self, images, scribbles, superpixels)
            history = history.write(i, values)
            i += 1
        return history.stack(), labels


def train_step(
    state: State, images: tf.Tensor, scribbles: tf.Tensor, superpixels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One update -> the labels (b, h, w) before it, their number, the values of HISTORY."""
    cfg = state.cfg
    variables = state.net.trainable_variables
    with tf.GradientTape() as tape:
        responses = state.net(images, keep_statistics=cfg.model.frozen_statistics)
    labels = cluster.winning_channels(responses)
    n_labels = cluster.count_labels(labels, cfg.model.n_clusters)
    targets = labels
    if cfg.model.superpixels:
        targets = cluster.majority_labels(labels, superpixels, cfg.model.n_clusters)
    is_marked = scribbles >= 0
    targets = tf.where(is_marked, scribbles, targets)
    weights = _pixel_weights(is_marked, cfg.training.scribble_weight)
    mu = _mu(cfg.training, tf.cast(n_labels, tf.float32))
    similarity, continuity, gradient = loss.value_and_gradient(responses, targets, weights, mu)
    gradients = tape.gradient(responses, variables, output_gradients=gradient)
    _optimizer_step(state, variables, gradients)
    return labels, n_labels, tf.stack([similarity, continuity, tf.cast(n_labels, tf.float32)])


def _pixel_weights(is_marked: tf.Tensor, scribble_weight: float) -> tf.Tensor:
    """Weights of the cross-entropy: its mean over unmarked plus its weighted mean over marked."""
    marked = tf.cast(is_marked, tf.float32)
    unmarked = 1 - marked
    return tf.math.divide_no_nan(unmarked, tf.reduce_sum(unmarked)) + (
        scribble_weight * tf.math.divide_no_nan(marked, tf.reduce_sum(marked))
    )


def _mu(training: config.Training, n_labels: tf.Tensor) -> tf.Tensor:
    """Weight of the continuity; the automatic ones are those of DynaSeg (Dakshit et al.)."""
    if training.auto_mu == "50/labels":
        return 50 / n_labels
    if training.auto_mu == "labels/15":
        return n_labels / 15
    return tf.constant(training.mu)


def _optimizer_step(state: State, variables: list[tf.Variable], gradients: list[tf.Tensor]) -> None:
    """SGD with momentum as in PyTorch, or Adam."""
    training, n = state.cfg.training, len(variables)
    state.n_updates.assign_add(1)
    if training.optimizer == "sgd":
        for variable, moment, gradient in zip(variables, state.moments, gradients, strict=True):
            moment.assign(training.momentum * moment + gradient)
            variable.assign_sub(training.lr * moment)
        return
    t = tf.cast(state.n_updates, tf.float32)
    (a, b), (first, second) = ADAM_DECAYS, (state.moments[:n], state.moments[n:])
    for variable, m, v, gradient in zip(variables, first, second, gradients, strict=True):
        m.assign(a * m + (1 - a) * gradient)
        v.assign(b * v + (1 - b) * gradient**2)
        scale = tf.sqrt(v / (1 - b**t)) + ADAM_EPSILON
        variable.assign_sub(training.lr * m / (1 - a**t) / scale)


def main() -> None:
    cfg, run = cli.start(config.Config, __file__, default="fast.yml")
    with run:
        dataset = data.ImageDataset(cfg.dataset)
        run.check_dataset(dataset.checksum)
        run.note(dataset_checksum=dataset.checksum, device=device_name(), n_images=len(dataset))
        first = dataset[0]
        check_scribbles(cfg, first)
        state = State(cfg, first.image.shape[2])
        resume(run, state)
        message = duplicates.one_color(dataset.are_one_color)
        if message and state.total == 0:
            log.warning("%s", message)
        train(cfg, run, state, dataset)


def check_scribbles(cfg: config.Config, sample: data.Sample) -> None:
    """Raises UserError for a single scribbled class, and for more of them than clusters."""
    n_classes = 0 if sample.scribbles is None else int(sample.scribbles.max()) + 1
    if n_classes == 1:
        raise UserError(
            "the scribbles mark a single class (in a mask, 255 or the most frequent color is "
            "unmarked): expected two or more"
        )
    if n_classes > cfg.model.n_clusters:
        raise UserError(
            f"model.n_clusters is {cfg.model.n_clusters}: expected at least {n_classes}, the "
            "number of scribbled classes"
        )


def check_channels(net: model.Net, samples: list[data.Sample]) -> None:
    """Raises UserError for an image of another number of channels than the first one."""
    for sample in samples:
        n = sample.image.shape[2]
        if n != net.n_channels:
            raise UserError(f"{sample.path} has {n} channels, the first image {net.n_channels}")


def train(cfg: config.Config, run: Run, state: State, dataset: data.ImageDataset) -> None:
    """The training loop: each batch of images in turn, check_interval iterations per chunk."""
    batches = data.batches(cfg, len(dataset))
    n_chunks = -(-cfg.training.n_iterations // cfg.training.check_interval)
    current, saved, inputs = None, time.monotonic(), None
    for chunk in run.epochs(state.batch * n_chunks, len(batches) * n_chunks, "chunk"):
        batch = chunk // n_chunks
        if batch != state.batch:
            state.begin_batch(batch)
        if state.is_done:
            continue
        if current != batch:
            samples = [dataset[i] for i in batches[batch]]
            check_channels(state.net, samples)
            current, inputs = batch, Inputs(cfg, samples)
            write_baseline(run, samples)
        began = time.perf_counter()
        history, labels = train_chunk(cfg, state, inputs)
        rate = len(history) / (time.perf_counter() - began)
        values = dict(zip(HISTORY, history[-1].tolist(), strict=True))
        run.log("train", state.total, **values, iterations_per_second=round(rate, 2))
        first = inputs.samples[0]
        figures.save_snapshot(run, first.name, state.step, labels[0], cfg.training)
        if state.is_done and cfg.dataset.mode != "reference":
            write_labels(run, state.net, first)
        if run.stopping or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            save(run, state)
            saved = time.monotonic()
        if run.stopping:
            run.stop()
    save(run, state)
    if cfg.dataset.mode == "reference":
        for i in range(len(dataset)):
            write_labels(run, state.net, dataset[i])


def n_steps(cfg: config.Config, batch: int) -> int:
    """Iterations on a batch; in mode "frames" fewer after the first, which start warm."""
    training = cfg.training
    if cfg.dataset.mode == "frames" and batch > 0:
        return min(training.n_warm_iterations, training.n_iterations)
    return training.n_iterations


class Inputs:
    """The arguments of State.train_steps for a batch of images."""

    def __init__(self, cfg: config.Config, samples: list[data.Sample]):
        self.samples = samples
        self.arrays = [tf.constant(array) for array in data.stack(cfg, samples)]
        self.min_labels = cfg.training.min_labels
        if samples[0].scribbles is not None:
            self.min_labels = int(samples[0].scribbles.max()) + 1  # the number of scribbled classes
        if cfg.dataset.mode == "reference":
            self.min_labels = 0  # the authors' script for reference images does not stop early


def train_chunk(cfg: config.Config, state: State, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Up to check_interval iterations -> HISTORY (n, 3), labels (b, h, w) before the last one.

    Raises UserError if a loss is NaN or infinite.
    """
    n_left = n_steps(cfg, state.batch) - state.step
    chunk = tf.constant(min(cfg.training.check_interval, n_left))
    history, labels = state.train_steps(*inputs.arrays, chunk, tf.constant(inputs.min_labels))
    history, labels = history.numpy(), labels.numpy()
    if not np.isfinite(history).all():
        bad = state.step + 1 + int((~np.isfinite(history)).any(1).argmax())
        raise UserError(f"the loss became NaN or infinite at step {bad}: lower training.lr")
    state.step += len(history)
    state.total += len(history)
    state.is_done = history[-1, 2] <= inputs.min_labels or state.step >= n_steps(cfg, state.batch)
    return history, labels


def fit(cfg: config.Config, state: State, sample: data.Sample) -> tuple[np.ndarray, np.ndarray]:
    """Trains on one image without a run folder -> labels (h, w) at its size, HISTORY (n, 3)."""
    state.begin_batch(0)
    inputs, histories = Inputs(cfg, [sample]), []
    while not state.is_done:
        histories.append(train_chunk(cfg, state, inputs)[0])
    return predict(state.net, sample.image), np.concatenate(histories)


def write_baseline(run: Run, samples: list[data.Sample]) -> None:
    """Felzenszwalb segments, the baseline, as baseline/NAME.npz."""
    (run.path / "baseline").mkdir(exist_ok=True)
    for sample in samples:
        labels = felzenszwalb(sample.image, 500)
        np.savez_compressed(run.path / "baseline" / f"{sample.name}.npz", labels=labels)


def write_labels(run: Run, net: model.Net, sample: data.Sample) -> None:
    """The labels of a trained network as labels/NAME.npz."""
    labels = predict(net, sample.image)
    (run.path / "labels").mkdir(exist_ok=True)
    np.savez_compressed(run.path / "labels" / f"{sample.name}.npz", labels=labels)
    log.info("%s: %d labels", sample.name, len(np.unique(labels)))


def predict(net: model.Net, image: np.ndarray, is_frozen: bool = False) -> np.ndarray:
    """The winning channel of every pixel: (h, w, c) -> (h, w) uint16.

    In an image of one color it is everywhere the most frequent one: only the padding of the
    convolutions makes a difference.
    """
    call = net.frozen_labels if is_frozen else net.labels
    labels = call(tf.constant(image[None])).numpy().astype(np.uint16)
    if duplicates.is_one_color(image):
        labels[:] = np.bincount(labels.ravel()).argmax()
    return labels


def save(run: Run, state: State) -> None:
    """Writes a checkpoint; raises UserError, and keeps the previous one, if a weight is NaN."""
    weights = model.by_name(state.net.variables)
    moments = model.by_name([*state.moments, state.n_updates])
    run.checkpoint(
        state.total,
        {
            "model.weights.h5": lambda path: checkpoint.save(path, weights),
            "state.h5": lambda path: checkpoint.save(path, moments),
        },
        batch=state.batch,
        iteration=state.step,
        is_done=state.is_done,
    )


def resume(run: Run, state: State) -> None:
    """Restores the latest checkpoint of the run, if there is one."""
    latest = run.latest_checkpoint()
    if latest is None:
        run.rewind()
        return
    checkpoint.load(latest.path / "model.weights.h5", model.by_name(state.net.variables))
    moments = model.by_name([*state.moments, state.n_updates])
    checkpoint.load(latest.path / "state.h5", moments)
    state.total = latest.step
    state.batch, state.step, state.is_done = map(
        latest.progress.get, ("batch", "iteration", "is_done")
    )
    run.rewind(state.total)


if __name__ == "__main__":
    cli.main(main)
