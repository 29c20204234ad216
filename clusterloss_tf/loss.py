"""Metric learning losses: facility location and the baselines it is compared with.

All are functions f(embeddings, labels, ...) of embeddings (n, d) and labels (n,) or (n, 1) of any
number type, compared only for equality, and return one term per embedding (n,). 16-bit embeddings
are computed in float32. A batch with nothing to compare (one class, or one point per class) has
finite gradients; facility location, triplet and lifted give zeros.
"""

import inspect
import math
from typing import Literal

from clusterloss_tf import cluster
from common.estimators import check_choice
from common.tf import keras, tf

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
    """Facility location loss (Song et al. 2017, section 3): (n,) terms whose sum is the loss.

    loss = [max over sets S of n_classes medoids of F(S) + gamma * margin(S) - F(class medoids)]+
    where F is minus the sum of the distances to the nearest medoid. F grows with the batch and the
    margin does not: for unit vectors a good gamma is near the batch size.

    refine: "greedy" keeps the greedy medoids, "pam" refines them as the original does, "swap"
    searches further, see cluster.py. margin: 1 minus NMI, AMI, adjusted Rand index or V-measure;
    "const": 1 for every partition other than the classes. The original is pam, nmi, summed; its NMI
    was geometric, as in the paper, until scikit-learn 0.22 and arithmetic since. Gradients flow
    only through the 2n distances to the chosen medoids. Raises ValueError for wrong shapes and
    choices.
    """
    _check(gamma, refine, margin, nmi_average)
    embeddings, labels = _batch(embeddings, labels)
    differences = tf.stop_gradient(embeddings[:, None] - embeddings[None])  # 0 for duplicates
    distances = tf.sqrt(tf.reduce_sum(differences**2, -1))
    weight = tf.constant(gamma, distances.dtype)
    result = cluster.find_medoids(distances, labels, weight, refine, margin, nmi_average)
    medoids, class_medoids, delta = map(tf.stop_gradient, result)
    terms = _norm(embeddings - tf.gather(embeddings, class_medoids))
    terms -= _norm(embeddings - tf.gather(embeddings, medoids))
    terms += weight * delta / tf.cast(tf.shape(labels)[0], terms.dtype)
    # not `> 0 else 0`, which would turn NaN into 0
    return tf.where(tf.reduce_sum(terms) <= 0, tf.zeros_like(terms), terms)


def _check(gamma: float, refine: str, margin: str, nmi_average: str) -> None:
    if not (gamma >= 0 and math.isfinite(gamma)):
        raise ValueError(f"gamma is {gamma}: expected a number of 0 or more")
    check_choice("refine", refine, cluster.Refine)
    check_choice("margin", margin, cluster.Margin)
    check_choice("nmi_average", nmi_average, cluster.Average)


@keras.saving.register_keras_serializable("clusterloss_tf")
class FacilityLocationLoss(keras.losses.Loss):
    """`facility_location` for `model.compile`: y_true are labels (n,) or (n, 1), y_pred embeddings.

    reduction "sum" is the paper's loss, the default its mean over the batch with the same meaning
    of gamma. Keras casts labels to float32, which merges some integers above 2**24.
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
        self.gamma, self.refine, self.margin = float(gamma), refine, margin
        self.nmi_average = nmi_average

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return facility_location(
            y_pred, y_true, self.gamma, self.refine, self.margin, self.nmi_average
        )

    def get_config(self) -> dict:
        return super().get_config() | {
            "gamma": self.gamma,
            "refine": self.refine,
            "margin": self.margin,
            "nmi_average": self.nmi_average,
        }


# ---- baselines; the mean of the terms is the loss


def contrastive(embeddings: tf.Tensor, labels: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Contrastive loss (Hadsell et al. 2006, equation 4).

    For each anchor half the mean over its positives of distance^2, plus half the mean over its
    negatives of ([margin - distance]+)^2. paper: the sum over pairs.
    """
    embeddings, labels = _batch(embeddings, labels)
    distances, (positive, negative) = _distances(embeddings), _pairs(labels)
    push = tf.nn.relu(margin - distances) ** 2
    return (_mean(distances**2, positive) + _mean(push, negative)) / 2


def triplet(
    embeddings: tf.Tensor,
    labels: tf.Tensor,
    margin: float = 0.2,
    mining: Literal["semihard", "hard"] = "semihard",
) -> tf.Tensor:
    """Triplet loss, [margin + d(anchor, positive) - d(anchor, negative)]+.

    semihard (FaceNet, Schroff et al. 2015, section 3): d is the squared distance; for each positive
    the nearest negative that is farther away, or else the farthest negative. hard (Hermans et al.
    2017): d is the distance, not squared; the farthest positive and the nearest negative.
    """
    if mining not in ("semihard", "hard"):
        raise ValueError(f"mining is {mining!r}: expected semihard or hard")
    embeddings, labels = _batch(embeddings, labels)
    positive, negative = _pairs(labels)
    distances = _distances(embeddings) if mining == "hard" else _squares(embeddings)
    infinity = distances.dtype.max
    has_both = tf.reduce_any(positive, 1) & tf.reduce_any(negative, 1)
    if mining == "hard":
        p = tf.reduce_max(tf.where(positive, distances, 0), 1)
        n = tf.reduce_min(tf.where(negative, distances, infinity), 1)
        return tf.where(has_both, tf.nn.relu(margin + p - tf.where(has_both, n, p)), 0)
    farthest = tf.reduce_max(tf.where(negative, distances, 0), 1)[:, None]
    # (n, n, n) anchors, positives, negatives
    beyond = negative[:, None, :] & (distances[:, None, :] > distances[:, :, None])
    n = tf.reduce_min(tf.where(beyond, distances[:, None, :], infinity), 2)
    n = tf.where(tf.reduce_any(beyond, 2), n, farthest)
    return tf.where(has_both, _mean(tf.nn.relu(margin + distances - n), positive), 0)


def lifted(embeddings: tf.Tensor, labels: tf.Tensor, margin: float = 1.0) -> tf.Tensor:
    """Lifted structured loss: a positive pair against the negatives of both.

    Song et al. 2016, where distances are not squared either. The mean over the positives of each
    anchor.
    """
    embeddings, labels = _batch(embeddings, labels)
    distances, (positive, negative) = _distances(embeddings), _pairs(labels)
    push = _log_sum_exp(margin - distances, negative)  # (n,)
    # log(exp(a) + exp(b)) = a + softplus(b - a)
    pair = distances + push[:, None] + tf.math.softplus(push[None] - push[:, None])
    has_negative = tf.reduce_any(negative, 1, keepdims=True)
    return _mean(tf.where(has_negative, tf.nn.relu(pair) ** 2 / 2, 0), positive)


def n_pair(embeddings: tf.Tensor, labels: tf.Tensor, temperature: float = 0.1) -> tf.Tensor:
    """N-pair loss: softmax of a positive's similarity against all negatives (Sohn 2016).

    paper: temperature 1 and a penalty on the norm; ours is for unit vectors.
    """
    embeddings, labels = _batch(embeddings, labels)
    positive, negative = _pairs(labels)
    similarity = tf.matmul(embeddings, embeddings, transpose_b=True) / temperature
    others = _log_sum_exp(similarity, negative)[:, None]
    return _mean(tf.math.softplus(others - similarity), positive)


def multi_similarity(
    embeddings: tf.Tensor,
    labels: tf.Tensor,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    slack: float = 0.1,
) -> tf.Tensor:
    """Multi-similarity loss of cosines (Wang et al. 2019).

    Keeps negatives more similar than the anchor's least similar positive minus `slack`, and
    positives less similar than its most similar negative plus `slack`. paper: base 1; 0.5 is that
    of the authors' code.
    """
    embeddings, labels = _batch(embeddings, labels)
    embeddings = tf.math.l2_normalize(embeddings, 1)
    positive, negative = _pairs(labels)
    similarity = tf.matmul(embeddings, embeddings, transpose_b=True)
    least = tf.reduce_min(tf.where(positive, similarity, 2), 1, keepdims=True)
    most = tf.reduce_max(tf.where(negative, similarity, -2), 1, keepdims=True)
    positive &= similarity < most + slack
    negative &= similarity > least - slack
    pull = tf.math.softplus(_log_sum_exp(-alpha * (similarity - base), positive)) / alpha
    return pull + tf.math.softplus(_log_sum_exp(beta * (similarity - base), negative)) / beta


def proxy_anchor(
    embeddings: tf.Tensor,
    labels: tf.Tensor,
    weights: tf.Tensor,
    alpha: float = 32.0,
    margin: float = 0.1,
) -> tf.Tensor:
    """Proxy-Anchor loss of learned proxies (Kim et al. 2020): the loss of the batch, n times.

    labels: integers from 0; weights (n_classes, d), the proxies.
    """
    embeddings, labels = _batch(embeddings, labels)
    is_own, cosines = _class_cosines(embeddings, labels, weights)  # (n, n_classes)
    pull = tf.math.softplus(_log_sum_exp(-alpha * (cosines - margin), is_own, 0))
    push = tf.math.softplus(_log_sum_exp(alpha * (cosines + margin), ~is_own, 0))
    n_present = tf.reduce_sum(tf.cast(tf.reduce_any(is_own, 0), pull.dtype))  # classes in the batch
    loss = tf.reduce_sum(pull) / n_present + tf.reduce_mean(push)
    return tf.fill(tf.shape(labels), loss)


def softmax(
    embeddings: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, scale: float = 16.0
) -> tf.Tensor:
    """Normalized softmax: cross-entropy of scaled cosines with class vectors (Zhai and Wu 2019).

    labels: integers from 0; weights (n_classes, d), the class vectors. paper: scale 20, a
    temperature of 0.05.
    """
    embeddings, labels = _batch(embeddings, labels)
    is_own, cosines = _class_cosines(embeddings, labels, weights)
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
class BaselineLoss(keras.losses.Loss):
    """One of FUNCTIONS for `model.compile`; options are keyword arguments of that function.

    proxy_anchor and softmax also learn n_classes vectors of `dim` numbers. `model.fit` does not
    update them: a training loop has to update `trainable_variables`.
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
        check_choice("kind", kind, Kind)
        known = list(inspect.signature(FUNCTIONS[kind]).parameters)
        for option in options:
            if option not in known[2:] or option == "weights":
                raise ValueError(f"{kind} has no option {option}")
        self.arguments = {"kind": kind, "n_classes": n_classes, "dim": dim, "seed": seed, **options}
        self.options, self.trainable_variables = dict(options), []
        if "weights" in known:
            if not n_classes or not dim:
                raise ValueError(f"{kind} learns one vector per class: give n_classes and dim")
            vectors = keras.initializers.RandomNormal(1.0, seed=seed)((n_classes, dim))
            self.options["weights"] = keras.Variable(vectors, name="class_vectors")
            self.trainable_variables = [self.options["weights"]]

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return FUNCTIONS[self.arguments["kind"]](y_pred, y_true, **self.options)

    def get_config(self) -> dict:
        return super().get_config() | self.arguments


# ---- shared functions


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
    """Euclidean norm over the last axis, with gradient 0 at 0, where the square root has none."""
    squares = tf.reduce_sum(vectors**2, -1)
    is_positive = squares > 0
    return tf.where(is_positive, tf.sqrt(tf.where(is_positive, squares, 1)), squares)


def _squares(embeddings: tf.Tensor) -> tf.Tensor:
    """Squared distances (n, n)."""
    return tf.reduce_sum((embeddings[:, None] - embeddings[None]) ** 2, -1)


def _distances(embeddings: tf.Tensor) -> tf.Tensor:
    return _norm(embeddings[:, None] - embeddings[None])


def _pairs(labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Positive pairs (n, n), without the diagonal, and negative pairs (n, n)."""
    is_same = labels[:, None] == labels[None, :]
    return is_same & ~tf.eye(tf.shape(labels)[0], dtype=tf.bool), ~is_same


def _class_cosines(
    embeddings: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """One-hot labels (n, n_classes) bool, and cosines (n, n_classes) with the class vectors."""
    weights = tf.cast(tf.convert_to_tensor(weights), embeddings.dtype)
    is_own = tf.cast(labels, tf.int32)[:, None] == tf.range(tf.shape(weights)[0])
    directions = tf.math.l2_normalize(weights, 1)
    return is_own, tf.matmul(tf.math.l2_normalize(embeddings, 1), directions, transpose_b=True)


def _mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean of each row over a mask, 0 if the mask is empty: (n, m) -> (n,)."""
    n = tf.reduce_sum(tf.cast(mask, values.dtype), 1)
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(mask, values, 0), 1), n)


def _log_sum_exp(values: tf.Tensor, mask: tf.Tensor, axis: int = 1) -> tf.Tensor:
    """Log-sum-exp over a mask; if the mask is empty, a number whose exponential is 0."""
    return tf.reduce_logsumexp(tf.where(mask, values, -1e9), axis)
