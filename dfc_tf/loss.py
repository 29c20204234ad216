"""The two terms of the loss (Kim et al. 2020, section 3): pure functions of tensors."""

from common.tf import tf


def similarity(responses: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Softmax cross-entropy of every pixel with its target label, weighted and summed (eq. 2).

    responses (b, h, w, q); targets (b, h, w) int; weights (b, h, w), for a mean they sum to 1. The
    target's channel is selected by a mask, which XLA fuses with the rest, unlike a gather.
    """
    channels = tf.range(tf.shape(responses)[-1], dtype=targets.dtype)
    target_responses = tf.where(channels == targets[..., None], responses, 0.0)
    highest = tf.stop_gradient(tf.reduce_max(responses, -1, keepdims=True))
    total = tf.reduce_sum(tf.exp(responses - highest), -1)
    log_total = tf.math.log(total) + highest[..., 0]
    return tf.reduce_sum(weights * (log_total - tf.reduce_sum(target_responses, -1)))


def continuity(responses: tf.Tensor) -> tf.Tensor:
    """Mean absolute difference between vertical neighbors plus between horizontal ones (eq. 3).

    responses (b, h, w, q). paper: L1 norms; we follow the authors' code, which averages over the
    channels, too. Images one pixel wide or high have no horizontal or vertical neighbors: 0.
    """
    vertical = tf.abs(responses[:, 1:] - responses[:, :-1])
    horizontal = tf.abs(responses[:, :, 1:] - responses[:, :, :-1])
    return sum(tf.math.divide_no_nan(tf.reduce_sum(d), _size(d)) for d in (vertical, horizontal))


def _size(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.size(values), values.dtype)


@tf.function(jit_compile=True)
def value_and_gradient(
    responses: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, mu: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Both terms, and the gradient of similarity + mu * continuity with respect to the responses.

    Compiled to one kernel: as separate operations the terms cost more than the convolutions.
    """
    with tf.GradientTape() as tape:
        tape.watch(responses)
        terms = similarity(responses, targets, weights), continuity(responses)
        loss = terms[0] + mu * terms[1]
    return *terms, tape.gradient(loss, responses)
