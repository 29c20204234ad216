"""Steps without gradient: winning channels, number of labels, majority labels of superpixels."""

from common.tf import tf


def winning_channels(responses: tf.Tensor) -> tf.Tensor:
    """The channel with the highest response at each pixel: (b, h, w, q) -> (b, h, w) int32."""
    return tf.argmax(responses, -1, output_type=tf.int32)


def count_labels(labels: tf.Tensor, n_clusters: int) -> tf.Tensor:
    """Number of distinct labels, as a scalar int32."""
    sizes = tf.math.bincount(tf.reshape(labels, [-1]), minlength=n_clusters, maxlength=n_clusters)
    return tf.math.count_nonzero(sizes, dtype=tf.int32)


def majority_labels(labels: tf.Tensor, superpixels: tf.Tensor, n_clusters: int) -> tf.Tensor:
    """Every pixel gets the most frequent label of its superpixel (Kanezaki 2018).

    labels, superpixels (b, h, w) int32; superpixels are numbered from 0 through the batch.
    """
    n = tf.reduce_max(superpixels) + 1
    pairs = tf.reshape(superpixels * n_clusters + labels, [-1])
    sizes = tf.math.bincount(pairs, minlength=n * n_clusters, maxlength=n * n_clusters)
    majority = tf.argmax(tf.reshape(sizes, [n, n_clusters]), -1, output_type=tf.int32)
    return tf.gather(majority, superpixels)
