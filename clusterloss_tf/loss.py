"""Losses of embeddings and labels: facility location, and the losses it is compared with.

All are called as f(embeddings, labels, ...) with embeddings (n, d) and labels (n,) or (n, 1) of any
number type, only equality of which counts, and give n terms. Embeddings of 16 bits are computed
with in 32. A batch that has nothing to compare (one class, all different) gives finite gradients,
facility location, triplets and lifted pairs zeros.
"""

import inspect
import math
from typing import Literal, get_args

import keras
import tensorflow as tf

from clusterloss_tf import cluster

Kind = Literal[
    "contrastive", "triplet", "lifted", "n_pair", "multi_similarity", "proxy_anchor", "softmax"
]


def facility_location(
    embeddings: tf.Tensor,
    labels: tf.Tensor,
    gamma: float = 1.0,
    refine: cluster.Refine = "pam",
    margin: cluster.Margin = "nmi",
    nmi_average: cluster.Average = "arithmetic",
) -> tf.Tensor:
    """How much better some medoids score than the classes' own: (n,) terms, whose sum is the loss.

    loss = [max over n_classes medoids S of F(S) + gamma * margin(S) - F(classes)]+, F being minus
    the sum of the distances to the nearest medoid (Song et al. 2017, section 3). F grows with the
    batch and the margin does not: for unit vectors gamma is best of the size of the batch.
    refine: "greedy" leaves the greedy medoids, "pam" is the original, "swap" searches further; see
    cluster.py. margin: 1 - NMI, adjusted mutual information, adjusted Rand index, V-measure, or 1
    wherever the partitions differ. The original is pam, nmi, summed; its NMI was geometric, as the
    paper's, until scikit-learn 0.22 and arithmetic since. The gradient goes through the 2n
    distances to the chosen medoids alone. Raises ValueError for wrong shapes and choices.
    """
    _check(gamma, refine, margin, nmi_average)
    embeddings, labels = _batch(embeddings, labels)
    differences = tf.stop_gradient(embeddings[:, None] - embeddings[None])  # exact 0 of duplicates
    distances = tf.sqrt(tf.reduce_sum(differences**2, -1))
    weight = tf.constant(gamma, distances.dtype)
    found = cluster.facilities(distances, labels, weight, refine, margin, nmi_average)
    nearest, truth, delta = map(tf.stop_gradient, found)
    terms = _norm(embeddings - tf.gather(embeddings, truth))
    terms -= _norm(embeddings - tf.gather(embeddings, nearest))
    terms += weight * delta / tf.cast(tf.shape(labels)[0], terms.dtype)
    # "not above zero" would turn NaN into 0
    return tf.where(tf.reduce_sum(terms) <= 0, tf.zeros_like(terms), terms)


def _check(gamma: float, refine: str, margin: str, nmi_average: str) -> None:
    if not (gamma >= 0 and math.isfinite(gamma)):
        raise ValueError(f"gamma is {gamma}: expected a number from 0 on")
    for name, value, known in (
        ("refine", refine, cluster.Refine),
        ("margin", margin, cluster.Margin),
        ("nmi_average", nmi_average, cluster.Average),
    ):
        if value not in get_args(known):
            raise ValueError(f"{name} is {value!r}: expected one of {', '.join(get_args(known))}")


@keras.saving.register_keras_serializable("clusterloss_tf")
class FacilityLocationLoss(keras.losses.Loss):
    """`facility_location` for `model.compile`; y_true (n,) or (n, 1) labels, y_pred embeddings.

    reduction "sum" is the paper's loss, the default its mean over the batch: gamma means the same
    in both. The labels are compared as float32: whole numbers beyond 2**24 would merge.
    """

    def __init__(
        self,
        gamma: float = 1.0,
        refine: cluster.Refine = "pam",
        margin: cluster.Margin = "nmi",
        nmi_average: cluster.Average = "arithmetic",
        reduction: str = "sum_over_batch_size",
        name: str = "facility_location",
        dtype: str = "float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        _check(gamma, refine, margin, nmi_average)
        self.gamma, self.refine, self.margin = gamma, refine, margin
        self.nmi_average = nmi_average

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return facility_location(
            y_pred, y_true, self.gamma, self.refine, self.margin, self.nmi_average
        )

    def get_config(self) -> dict:
        own = {"gamma": self.gamma, "refine": self.refine, "margin": self.margin}
        return {**super().get_config(), **own, "nmi_average": self.nmi_average}


# ---- what it is compared with; the mean of the terms is the loss


def contrastive(embeddings: tf.Tensor, labels: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Squared distance of equals, squared lack of distance of others (Hadsell et al. 2006).

    Of each anchor the mean over its positives plus the mean over its negatives.
    """
    embeddings, labels = _batch(embeddings, labels)
    distances, (positive, negative) = _distances(embeddings), _pairs(labels)
    apart = tf.nn.relu(margin - distances) ** 2
    return _mean(distances**2, positive) + _mean(apart, negative)


def triplet(
    embeddings: tf.Tensor,
    labels: tf.Tensor,
    margin: float = 0.2,
    mining: Literal["semihard", "hard"] = "semihard",
) -> tf.Tensor:
    """[margin + distance to a positive - distance to a negative]+ (Schroff et al. 2015).

    semihard: with every positive the nearest negative beyond it, else the furthest of all; hard:
    the furthest positive with the nearest negative (Hermans et al. 2017).
    """
    if mining not in ("semihard", "hard"):
        raise ValueError(f"mining is {mining!r}: expected semihard or hard")
    embeddings, labels = _batch(embeddings, labels)
    distances, (positive, negative) = _distances(embeddings), _pairs(labels)
    far = distances.dtype.max
    has_both = tf.reduce_any(positive, 1) & tf.reduce_any(negative, 1)
    if mining == "hard":
        p = tf.reduce_max(tf.where(positive, distances, 0), 1)
        n = tf.reduce_min(tf.where(negative, distances, far), 1)
        return tf.where(has_both, tf.nn.relu(margin + p - tf.where(has_both, n, p)), 0)
    furthest = tf.reduce_max(tf.where(negative, distances, 0), 1)[:, None]
    # (n, n, n) anchors, positives, negatives
    beyond = negative[:, None, :] & (distances[:, None, :] > distances[:, :, None])
    n = tf.reduce_min(tf.where(beyond, distances[:, None, :], far), 2)
    n = tf.where(tf.reduce_any(beyond, 2), n, furthest)
    return tf.where(has_both, _mean(tf.nn.relu(margin + distances - n), positive), 0)


def lifted(embeddings: tf.Tensor, labels: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Every positive pair against all negatives of both its ends (Song et al. 2016)."""
    embeddings, labels = _batch(embeddings, labels)
    distances, (positive, negative) = _distances(embeddings), _pairs(labels)
    push = _log_sum_exp(margin - distances, negative)  # (n,)
    # log(exp(a) + exp(b)) = a + softplus(b - a)
    pair = distances + push[:, None] + tf.math.softplus(push[None] - push[:, None])
    has_negative = tf.reduce_any(negative, 1, keepdims=True)
    return _mean(tf.where(has_negative, tf.nn.relu(pair) ** 2 / 2, 0), positive)


def n_pair(embeddings: tf.Tensor, labels: tf.Tensor, temperature: float = 0.1) -> tf.Tensor:
    """Softmax of one positive's similarity among those of all negatives (Sohn 2016).

    paper: temperature 1 and a penalty on the norm; ours is for unit vectors.
    """
    embeddings, labels = _batch(embeddings, labels)
    positive, negative = _pairs(labels)
    similar = tf.matmul(embeddings, embeddings, transpose_b=True) / temperature
    others = _log_sum_exp(similar, negative)[:, None]
    return _mean(tf.math.softplus(others - similar), positive)


def multi_similarity(
    embeddings: tf.Tensor,
    labels: tf.Tensor,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    slack: float = 0.1,
) -> tf.Tensor:
    """Mined and weighted pairs of cosines (Wang et al. 2019).

    Kept are negatives within `slack` of the anchor's least similar positive, and positives within
    it of its most similar negative.
    """
    embeddings, labels = _batch(embeddings, labels)
    embeddings = tf.math.l2_normalize(embeddings, 1)
    positive, negative = _pairs(labels)
    similar = tf.matmul(embeddings, embeddings, transpose_b=True)
    least = tf.reduce_min(tf.where(positive, similar, 2), 1, keepdims=True)
    most = tf.reduce_max(tf.where(negative, similar, -2), 1, keepdims=True)
    positive, negative = (
        positive & (similar < most + slack),
        negative & (similar > least - slack),
    )
    pull = tf.math.softplus(_log_sum_exp(-alpha * (similar - base), positive)) / alpha
    return pull + tf.math.softplus(_log_sum_exp(beta * (similar - base), negative)) / beta


def proxy_anchor(
    embeddings: tf.Tensor,
    labels: tf.Tensor,
    weights: tf.Tensor,
    alpha: float = 32.0,
    margin: float = 0.1,
) -> tf.Tensor:
    """Learned proxies as anchors (Kim et al. 2020): the loss of the batch, n times.

    labels whole numbers from 0; weights (n_classes, d).
    """
    embeddings, labels = _batch(embeddings, labels)
    is_own, cosines = _classes(embeddings, labels, weights)  # (n, n_classes)
    pull = tf.math.softplus(_log_sum_exp(-alpha * (cosines - margin), is_own, 0))
    push = tf.math.softplus(_log_sum_exp(alpha * (cosines + margin), ~is_own, 0))
    n_met = tf.reduce_sum(tf.cast(tf.reduce_any(is_own, 0), pull.dtype))
    loss = tf.reduce_sum(pull) / n_met + tf.reduce_mean(push)
    return tf.fill(tf.shape(labels), loss)


def softmax(
    embeddings: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, scale: float = 16.0
) -> tf.Tensor:
    """Cross-entropy of scaled cosines with one vector a class (Zhai and Wu 2019).

    labels whole numbers from 0; weights (n_classes, d).
    """
    embeddings, labels = _batch(embeddings, labels)
    is_own, cosines = _classes(embeddings, labels, weights)
    own = tf.reduce_sum(tf.where(is_own, cosines, 0), 1)
    return tf.reduce_logsumexp(scale * cosines, 1) - scale * own


FUNCTIONS = {
    "contrastive": contrastive,
    "triplet": triplet,
    "lifted": lifted,
    "n_pair": n_pair,
    "multi_similarity": multi_similarity,
    "proxy_anchor": proxy_anchor,
    "softmax": softmax,
}


@keras.saving.register_keras_serializable("clusterloss_tf")
class CompanionLoss(keras.losses.Loss):
    """One of the functions above for `model.compile`; options are the function's own.

    proxy_anchor and softmax learn n_classes vectors of `dim` numbers too: whoever trains with them
    has to update `trainable_variables`, which `model.fit` does not.
    """

    def __init__(
        self,
        kind: Kind,
        n_classes: int | None = None,
        dim: int | None = None,
        seed: int = 0,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
        dtype: str = "float32",
        **options: float | str,
    ):
        super().__init__(name=name or kind, reduction=reduction, dtype=dtype)
        if kind not in FUNCTIONS:
            raise ValueError(f"kind is {kind!r}: expected one of {', '.join(FUNCTIONS)}")
        known = list(inspect.signature(FUNCTIONS[kind]).parameters)
        for option in options:
            if option not in known[2:] or option == "weights":
                raise ValueError(f"{kind} has no option {option}")
        self.own = {"kind": kind, "n_classes": n_classes, "dim": dim, "seed": seed, **options}
        self.options, self.trainable_variables = dict(options), []
        if "weights" in known:
            if not n_classes or not dim:
                raise ValueError(f"{kind} learns a vector a class: give n_classes and dim")
            start = keras.initializers.RandomNormal(1.0, seed=seed)((n_classes, dim))
            self.options["weights"] = keras.Variable(start, name="class_vectors")
            self.trainable_variables = [self.options["weights"]]

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return FUNCTIONS[self.own["kind"]](y_pred, y_true, **self.options)

    def get_config(self) -> dict:
        return {**super().get_config(), **self.own}


# ---- what they share


def _batch(embeddings: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    embeddings, labels = tf.convert_to_tensor(embeddings), tf.convert_to_tensor(labels)
    if embeddings.shape.rank != 2:
        raise ValueError(f"embeddings are {embeddings.shape}: expected (n, d)")
    if embeddings.dtype not in (tf.float32, tf.float64):
        embeddings = tf.cast(embeddings, tf.float32)
    labels = tf.reshape(labels, [-1])
    if not embeddings.shape[:1].is_compatible_with(labels.shape):
        raise ValueError(f"there are {embeddings.shape[0]} embeddings and {labels.shape[0]} labels")
    return embeddings, labels


def _norm(vectors: tf.Tensor) -> tf.Tensor:
    """Euclidean norm over the last axis, with gradient 0 at 0, where the root has none."""
    squares = tf.reduce_sum(vectors**2, -1)
    is_positive = squares > 0
    return tf.where(is_positive, tf.sqrt(tf.where(is_positive, squares, 1)), squares)


def _distances(embeddings: tf.Tensor) -> tf.Tensor:
    return _norm(embeddings[:, None] - embeddings[None])


def _pairs(labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which pairs (n, n) are of one label, none with itself, and which of two."""
    is_same = labels[:, None] == labels[None, :]
    return is_same & ~tf.eye(tf.shape(labels)[0], dtype=tf.bool), ~is_same


def _classes(
    embeddings: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which class is each one's (n, n_classes) bool, and the cosines with all classes' vectors."""
    weights = tf.cast(tf.convert_to_tensor(weights), embeddings.dtype)
    is_own = tf.cast(labels, tf.int32)[:, None] == tf.range(tf.shape(weights)[0])
    directions = tf.math.l2_normalize(weights, 1)
    return is_own, tf.matmul(tf.math.l2_normalize(embeddings, 1), directions, transpose_b=True)


def _mean(values: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Of the chosen ones in each row; 0 where there is none."""
    n = tf.reduce_sum(tf.cast(chosen, values.dtype), 1)
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(chosen, values, 0), 1), n)


def _log_sum_exp(values: tf.Tensor, chosen: tf.Tensor, axis: int = 1) -> tf.Tensor:
    """Of the chosen ones; where there is none a number whose exponential is 0."""
    return tf.reduce_logsumexp(tf.where(chosen, values, -1e9), axis)
