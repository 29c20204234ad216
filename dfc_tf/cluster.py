"""The steps without a gradient: winning channels, their number, majorities of superpixels."""

import tensorflow as tf


def winners(responses: tf.Tensor) -> tf.Tensor:
    """The channel that is highest at each pixel: (b, h, w, q) -> (b, h, w) int32."""
    return tf.argmax(responses, -1, output_type=tf.int32)


def count(labels: tf.Tensor, n_clusters: int) -> tf.Tensor:
    """How many different labels there are, on the device: a scalar int32."""
    sizes = tf.math.bincount(tf.reshape(labels, [-1]), minlength=n_clusters, maxlength=n_clusters)
    return tf.math.count_nonzero(sizes, dtype=tf.int32)


def majorities(labels: tf.Tensor, superpixels: tf.Tensor, n_clusters: int) -> tf.Tensor:
    """Every pixel gets the most frequent label of its superpixel (Kanezaki 2018).

    labels, superpixels (b, h, w) int32, superpixels numbered from 0 through the batch.
    """
    n = tf.reduce_max(superpixels) + 1
    pairs = tf.reshape(superpixels * n_clusters + labels, [-1])
    sizes = tf.math.bincount(pairs, minlength=n * n_clusters, maxlength=n * n_clusters)
    most = tf.argmax(tf.reshape(sizes, [n, n_clusters]), -1, output_type=tf.int32)
    return tf.gather(most, superpixels)
