"""Trains feature clustering on a picture: python dfc_tf/train.py --dataset.path photo.jpg"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: it greets in six lines

from common.tf import quiet

with quiet.stderr():
    import tensorflow as tf
import numpy as np

from common import UserError, cli, malloc_tuning
from common.run import Run
from dfc_tf import cluster, config, data, loss, model, pictures, regions

log = logging.getLogger("dfc_tf.train")

SECONDS_BETWEEN_CHECKPOINTS = 30.0
ADAM_DECAYS, ADAM_EPSILON = (0.9, 0.999), 1e-8
HISTORY = ("similarity", "continuity", "n_labels")


class State(tf.Module):
    """All that a training is at one moment: the network, the optimiser's moments, how far it is.

    batch: the pictures that are trained on now, step: iterations of them, total: of all so far.
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
        self.n_updates = tf.Variable(0, trainable=False, name="n_updates")  # that moments hold
        self.step = self.total = self.batch = 0
        self.is_over = False

    def begin_batch(self, batch: int) -> None:
        """Starts with other pictures: in mode "each" from new weights, always with no momentum."""
        if self.cfg.dataset.mode == "each":
            self.net.reset(self.cfg.training.seed)
        for variable in [*self.moments, self.n_updates]:
            variable.assign(tf.zeros_like(variable))
        self.batch, self.step, self.is_over = batch, 0, False

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, None)),
            tf.TensorSpec((None, None, None), tf.int32),
            tf.TensorSpec((None, None, None), tf.int32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.int32),
        ]
    )
    def advance(
        self,
        images: tf.Tensor,
        scribbles: tf.Tensor,
        superpixels: tf.Tensor,
        n_steps: tf.Tensor,
        min_labels: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes n_steps, or fewer where the labels fall to min_labels, without leaving the graph.

        images (b, h, w, c); scribbles (b, h, w), -1 unmarked; superpixels (b, h, w) if the config
        has some -> what HISTORY says of every step (n, 3), and the labels (b, h, w) before the last
        one. Traced once, for pictures of all sizes.
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
    """One update -> the labels (b, h, w) before it, how many there are, the values of HISTORY."""
    cfg = state.cfg
    variables = state.net.trainable_variables
    with tf.GradientTape() as tape:
        responses = state.net(images, keep_statistics=cfg.model.frozen_statistics)
    labels = cluster.winners(responses)
    n_labels = cluster.count(labels, cfg.model.n_clusters)
    targets = labels
    if cfg.model.superpixels:
        targets = cluster.majorities(labels, superpixels, cfg.model.n_clusters)
    is_marked = scribbles >= 0
    targets = tf.where(is_marked, scribbles, targets)
    weights = _weights(is_marked, cfg.training.scribble_weight)
    mu = _mu(cfg.training, tf.cast(n_labels, tf.float32))
    similarity, continuity, gradient = loss.value_and_gradient(responses, targets, weights, mu)
    gradients = tape.gradient(responses, variables, output_gradients=gradient)
    _update(state, variables, gradients)
    return labels, n_labels, tf.stack([similarity, continuity, tf.cast(n_labels, tf.float32)])


def _weights(is_marked: tf.Tensor, scribble_weight: float) -> tf.Tensor:
    """Of every pixel's cross-entropy: two means, of what is not marked and of what is."""
    marked = tf.cast(is_marked, tf.float32)
    others = 1 - marked
    return tf.math.divide_no_nan(others, tf.reduce_sum(others)) + (
        scribble_weight * tf.math.divide_no_nan(marked, tf.reduce_sum(marked))
    )


def _mu(training: config.Training, n_labels: tf.Tensor) -> tf.Tensor:
    """The weight of the continuity; the automatic ones are DynaSeg's (Dakshit et al.)."""
    if training.auto_mu == "50/labels":
        return 50 / n_labels
    if training.auto_mu == "labels/15":
        return n_labels / 15
    return tf.constant(training.mu)


def _update(state: State, variables: list[tf.Variable], gradients: list[tf.Tensor]) -> None:
    """SGD with momentum as PyTorch's, or Adam."""
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
        spread = tf.sqrt(v / (1 - b**t)) + ADAM_EPSILON
        variable.assign_sub(training.lr * m / (1 - a**t) / spread)


def main() -> None:
    cfg, run = cli.start(config.Config, __file__, default="fast.yml")
    with run:
        found = data.Pictures(cfg.dataset)
        if run.meta.get("dataset_checksum", found.checksum) != found.checksum:
            raise UserError("the pictures are not what they were when the run began: start anew")
        run.note(dataset_checksum=found.checksum, device=device(), pictures=len(found))
        first = found[0]
        check(cfg, first)
        state = State(cfg, first.image.shape[2])
        resume(run, state)
        train(cfg, run, state, found)


def device() -> str:
    """What TensorFlow computes on; one line where CUDA_VISIBLE_DEVICES names what is not there."""
    if tf.config.list_physical_devices("GPU"):
        return "GPU"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "") not in ("", "-1"):
        name = os.environ["CUDA_VISIBLE_DEVICES"]
        log.info("CUDA=%s: no such GPU here, going on with the CPU", name)
    return "CPU"


def check(cfg: config.Config, picture: data.Picture) -> None:
    """Raises UserError where the config asks for what the picture does not allow."""
    n_scribbles = 0 if picture.scribbles is None else int(picture.scribbles.max()) + 1
    if n_scribbles > cfg.model.n_clusters:
        raise UserError(
            f"model.n_clusters is {cfg.model.n_clusters}, the scribbles have {n_scribbles} classes"
        )


def check_channels(net: model.Net, found: list[data.Picture]) -> None:
    """Raises UserError for a picture that the network is not for."""
    for picture in found:
        n = picture.image.shape[2]
        if n != net.n_channels:
            raise UserError(f"{picture.path} has {n} channels, the first picture {net.n_channels}")


def train(cfg: config.Config, run: Run, state: State, found: data.Pictures) -> None:
    """The loop: every batch of pictures in turn, check_interval iterations at a time."""
    batches = data.batches(cfg, len(found))
    n_chunks = -(-cfg.training.n_iterations // cfg.training.check_interval)
    current, saved, inputs = None, time.monotonic(), None
    for chunk in run.epochs(state.batch * n_chunks, len(batches) * n_chunks, "chunk"):
        batch = chunk // n_chunks
        if batch != state.batch:
            state.begin_batch(batch)
        if state.is_over:
            continue
        if current != batch:
            chosen = [found[i] for i in batches[batch]]
            check_channels(state.net, chosen)
            current, inputs = batch, Inputs(cfg, chosen)
            write_baseline(run, inputs.pictures)
        began = time.perf_counter()
        history, labels = train_chunk(cfg, state, inputs)
        rate = len(history) / (time.perf_counter() - began)
        values = dict(zip(HISTORY, history[-1].tolist(), strict=True))
        run.log("train", state.total, **values, iterations_per_second=round(rate, 2))
        first = inputs.pictures[0]
        pictures.snapshot(run, first.name, state.step, labels[0], cfg.training)
        if state.is_over and cfg.dataset.mode != "reference":
            write_labels(run, state.net, first)
        if run.stopping or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            save(run, state)
            saved = time.monotonic()
        if run.stopping:
            run.stop()
    save(run, state)
    if cfg.dataset.mode == "reference":
        for i in range(len(found)):
            write_labels(run, state.net, found[i])


def n_steps(cfg: config.Config, batch: int) -> int:
    """Iterations of a batch; the frames after the first start from what the one before learned."""
    training = cfg.training
    if cfg.dataset.mode == "frames" and batch > 0:
        return min(training.n_warm_iterations, training.n_iterations)
    return training.n_iterations


class Inputs:
    """What the graph gets of the pictures that are trained on together."""

    def __init__(self, cfg: config.Config, found: list[data.Picture]):
        self.pictures = found
        self.arrays = [tf.constant(array) for array in data.stack(cfg, found)]
        self.min_labels = cfg.training.min_labels
        if found[0].scribbles is not None:
            self.min_labels = int(found[0].scribbles.max()) + 1  # the scribbled classes, no fewer
        if cfg.dataset.mode == "reference":
            self.min_labels = 0  # the authors' script for reference pictures has no such end


def train_chunk(cfg: config.Config, state: State, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Up to check_interval iterations -> HISTORY (n, 3), labels (b, h, w) before the last one.

    Raises UserError where a loss is NaN or infinite.
    """
    left = n_steps(cfg, state.batch) - state.step
    chunk = tf.constant(min(cfg.training.check_interval, left))
    history, labels = state.advance(*inputs.arrays, chunk, tf.constant(inputs.min_labels))
    history, labels = history.numpy(), labels.numpy()
    if not np.isfinite(history).all():
        bad = state.step + 1 + int((~np.isfinite(history)).any(1).argmax())
        raise UserError(f"the loss became NaN or infinite at step {bad}: lower training.lr")
    state.step += len(history)
    state.total += len(history)
    state.is_over = history[-1, 2] <= inputs.min_labels or state.step >= n_steps(cfg, state.batch)
    return history, labels


def fit(cfg: config.Config, state: State, picture: data.Picture) -> tuple[np.ndarray, np.ndarray]:
    """Trains on one picture without a run folder -> labels (h, w) at its size, HISTORY (n, 3)."""
    state.begin_batch(0)
    inputs, histories = Inputs(cfg, [picture]), []
    while not state.is_over:
        histories.append(train_chunk(cfg, state, inputs)[0])
    return predict(state.net, picture.image), np.concatenate(histories)


def write_baseline(run: Run, found: list[data.Picture]) -> None:
    """Felzenszwalb's segments, the first result: what the training has to beat."""
    (run.path / "baseline").mkdir(exist_ok=True)
    for picture in found:
        labels = regions.felzenszwalb(picture.image)
        np.savez_compressed(run.path / "baseline" / f"{picture.name}.npz", labels=labels)


def write_labels(run: Run, net: model.Net, picture: data.Picture) -> None:
    labels = predict(net, picture.image)
    (run.path / "labels").mkdir(exist_ok=True)
    np.savez_compressed(run.path / "labels" / f"{picture.name}.npz", labels=labels)
    log.info("%s: %d labels", picture.name, len(np.unique(labels)))


def predict(net: model.Net, image: np.ndarray, is_frozen: bool = False) -> np.ndarray:
    """The winning channel of every pixel: (h, w, c) -> (h, w) uint16."""
    call = net.frozen_labels if is_frozen else net.labels
    return call(tf.constant(image[None])).numpy().astype(np.uint16)


def save(run: Run, state: State) -> None:
    """Writes a checkpoint; raises UserError, and leaves the one before, if a weight is NaN."""
    weights = model.by_name(state.net.variables)
    moments = model.by_name([*state.moments, state.n_updates])
    run.checkpoint(
        state.total,
        {
            "model.weights.h5": lambda path: model.save(path, weights),
            "state.h5": lambda path: model.save(path, moments),
        },
        batch=state.batch,
        iteration=state.step,
        is_over=state.is_over,
    )


def resume(run: Run, state: State) -> None:
    """Goes on from the latest checkpoint of the run, if there is one, as if never stopped."""
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        run.rewind()
        return
    model.load(checkpoint.path / "model.weights.h5", model.by_name(state.net.variables))
    moments = model.by_name([*state.moments, state.n_updates])
    model.load(checkpoint.path / "state.h5", moments)
    state.total = checkpoint.step
    state.batch, state.step, state.is_over = map(
        checkpoint.progress.get, ("batch", "iteration", "is_over")
    )
    run.rewind(state.total)


if __name__ == "__main__":
    cli.main(main)
