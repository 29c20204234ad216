"""Medoid search of the facility location loss (Song et al. 2017, section 3.4), without gradients.

Medoids are chosen greedily, then refined by PAM or by swaps. All arrays are (n, n) or (m, n) with
static shapes, so that XLA compiles the whole search. A partition is stored not as a contingency
table but as two equality matrices, "i and j share a label" and "i and j share a medoid": products
with them count the points of each cell, so the margins are exact without hashing, sorting or a
fixed number of classes. Computed indices go through tf.gather: to compile x[i], XLA evaluates
everything before it.
"""

from typing import Literal, NamedTuple

from common.tf import tf

Refine = Literal["greedy", "pam", "swap"]
Margin = Literal["nmi", "ami", "ari", "vmeasure", "const"]
Average = Literal["arithmetic", "geometric"]

N_SWEEPS = 5  # the original's pam_max_iter
N_ROWS = 8  # members of a cluster that PAM evaluates at once
ROUNDING = 1e-6  # a swap has to raise the score by more than this fraction of it


class Problem(NamedTuple):
    """The batch to search in.

    distances (n, n) with diagonal -1, so that a medoid is nearest to itself even if it has
    duplicates; same_label (n, n) 1.0 where two points share a label; gamma (); expected (n + 1,) as
    `_expected_information`, empty if the margin does not need it.
    """

    distances: tf.Tensor
    same_label: tf.Tensor
    gamma: tf.Tensor
    expected: tf.Tensor
    margin: Margin
    average: Average


@tf.function(jit_compile=True)
def find_medoids(
    distances: tf.Tensor,
    labels: tf.Tensor,
    gamma: tf.Tensor,
    refine: Refine,
    margin: Margin,
    average: Average,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Searches the medoids that maximize facility score + gamma * margin.

    distances (n, n) with a zero diagonal, labels (n,) -> index of the medoid of each point (n,)
    int32, index of the medoid of each point's class (n,) int32, the margin () in [0, 1].
    """
    n = _size(distances)
    is_same = labels[:, None] == labels[None, :]
    same_label = tf.cast(is_same, distances.dtype)
    within = tf.reduce_sum(same_label * distances, 1)  # (n,) cost of a point as its class's medoid
    class_medoids = tf.where(is_same, within, distances.dtype.max)
    class_medoids = tf.argmin(class_medoids, 1, output_type=tf.int32)
    earlier = tf.linalg.band_part(same_label, -1, 0) - tf.eye(n, dtype=same_label.dtype)
    n_classes = tf.math.count_nonzero(tf.reduce_sum(earlier, 1) == 0, dtype=tf.int32)
    expected = tf.zeros(0, same_label.dtype)
    if margin == "ami":
        expected = _expected_information(same_label)
    marked = distances - tf.eye(n, dtype=distances.dtype)
    problem = Problem(marked, same_label, gamma, expected, margin, average)
    medoids = _greedy(problem, n_classes)
    if refine != "greedy":
        medoids = (_pam if refine == "pam" else _swap)(problem, medoids, n_classes)
    clusters = _assign(problem, medoids, n_classes)[1]
    same_cluster = tf.cast(clusters[:, None] == clusters[None, :], same_label.dtype)
    n_cell = tf.reduce_sum(same_cluster * same_label, 1)
    n_cluster = tf.reduce_sum(same_cluster, 1)
    delta = _margin(problem, n_cell[None], n_cluster[None])[0]
    # with NaN distances there may be no medoid: the index must still be valid
    return tf.maximum(tf.gather(medoids, clusters), 0), tf.maximum(class_medoids, 0), delta


def _size(square: tf.Tensor) -> tf.Tensor | int:
    """The number of points, static if it is known: loops then keep static shapes."""
    return square.shape[0] or tf.shape(square)[0]


def _greedy(problem: Problem, n_classes: tf.Tensor) -> tf.Tensor:
    """Algorithm 1: adds the best point n_classes times -> medoids (n,), padded with -1."""
    n = _size(problem.distances)

    def add(k, medoids, nearest, clusters):
        moved = problem.distances < nearest  # (n, n): row c, the points that medoid c would take
        scores = -tf.reduce_sum(tf.nn.relu(tf.minimum(problem.distances, nearest)), 1)
        scores += problem.gamma * _margin(problem, *_counts(problem, moved, clusters))
        scores = tf.where(nearest < 0, -scores.dtype.max, scores)  # medoids already
        best = tf.argmax(scores, output_type=tf.int32)
        row = tf.gather(problem.distances, best)
        medoids = tf.where(tf.range(n) == k, best, medoids)
        return k + 1, medoids, tf.minimum(row, nearest), tf.where(row < nearest, k, clusters)

    start = (0, tf.fill([n], -1), tf.fill([n], problem.distances.dtype.max), tf.fill([n], -1))
    return tf.while_loop(lambda k, *_: k < n_classes, add, start)[1]


def _pam(problem: Problem, medoids: tf.Tensor, n_classes: tf.Tensor) -> tf.Tensor:
    """Algorithm 2 as in the original code: N_SWEEPS sweeps, each medoid becomes its best member.

    The facility term sums over the members that the cluster had before the sweep, the margin is
    that of the new medoid among all others; a medoid is replaced even if the score falls.
    """
    n = _size(problem.distances)

    def sweep(i, medoids):
        clusters = _assign(problem, medoids, n_classes)[1]
        same_cluster = tf.cast(clusters[:, None] == clusters[None, :], problem.same_label.dtype)
        # the costs of two members alone must be equal to the last bit: the first one wins
        costs = tf.reduce_sum(same_cluster * tf.nn.relu(problem.distances), 1)
        members = tf.argsort(clusters, stable=True)  # of cluster 0, then of cluster 1, ...
        sizes = tf.reduce_sum(tf.cast(clusters == tf.range(n)[:, None], tf.int32), 1)
        ends = tf.cumsum(sizes)

        def move(k, medoids):
            others = _assign(problem, medoids, n_classes, k)

            def evaluate(first, best, best_score):
                positions = first + tf.range(N_ROWS)
                rows = tf.gather(members, tf.minimum(positions, n - 1))
                moved = _would_move(tf.gather(problem.distances, rows), k, *others)
                scores = problem.gamma * _margin(problem, *_counts(problem, moved, others[1]))
                scores -= tf.gather(costs, rows)
                scores = tf.where(positions < tf.gather(ends, k), scores, -scores.dtype.max)
                j = tf.argmax(scores, output_type=tf.int32)
                score = tf.reduce_max(scores)
                best = tf.where(score > best_score, tf.gather(rows, j), best)
                return first + N_ROWS, best, tf.maximum(score, best_score)

            end, old = tf.gather(ends, k), tf.gather(medoids, k)
            start = (end - tf.gather(sizes, k), old, -costs.dtype.max)
            best = tf.while_loop(lambda first, *_: first < end, evaluate, start)[1]
            return k + 1, tf.where(tf.range(n) == k, best, medoids)

        return i + 1, tf.while_loop(lambda k, _: k < n_classes, move, (0, medoids))[1]

    return tf.while_loop(lambda i, _: i < N_SWEEPS, sweep, (0, medoids))[1]


def _swap(problem: Problem, medoids: tf.Tensor, n_classes: tf.Tensor) -> tf.Tensor:
    """Replaces each medoid in turn by the point with the highest score: the score never falls.

    Not in the paper, whose PAM considers only members and a surrogate score. Stops after a sweep
    without changes, or after N_SWEEPS.
    """
    n = _size(problem.distances)

    def move(k, medoids):
        nearest, clusters = _assign(problem, medoids, n_classes, k)
        moved = _would_move(problem.distances, k, nearest, clusters)
        scores = -tf.reduce_sum(tf.nn.relu(tf.minimum(problem.distances, nearest)), 1)
        scores += problem.gamma * _margin(problem, *_counts(problem, moved, clusters))
        scores = tf.where(nearest < 0, -scores.dtype.max, scores)
        best = tf.argmax(scores, output_type=tf.int32)
        present = tf.gather(scores, tf.gather(medoids, k))
        is_better = tf.reduce_max(scores) > present + ROUNDING * tf.abs(present)
        return k + 1, tf.where((tf.range(n) == k) & is_better, best, medoids)

    def sweep(i, medoids, _):
        after = tf.while_loop(lambda k, _: k < n_classes, move, (0, medoids))[1]
        return i + 1, after, tf.reduce_any(after != medoids)

    def should_continue(i, _, has_changed):
        return (i < N_SWEEPS) & has_changed

    return tf.while_loop(should_continue, sweep, (0, medoids, True))[1]


def _assign(
    problem: Problem, medoids: tf.Tensor, n_classes: tf.Tensor, without: tf.Tensor | int = -1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Distance to the nearest medoid (n,) and its cluster (n,), the lowest one for ties.

    without: a cluster to leave out.
    """
    numbers = tf.range(_size(problem.distances))
    is_used = (numbers < n_classes) & (numbers != without)
    rows = tf.gather(problem.distances, tf.maximum(medoids, 0))
    rows = tf.where(is_used[:, None], rows, rows.dtype.max)
    return tf.reduce_min(rows, 0), tf.argmin(rows, 0, output_type=tf.int32)


def _would_move(
    rows: tf.Tensor, cluster: tf.Tensor, nearest: tf.Tensor, clusters: tf.Tensor
) -> tf.Tensor:
    """Which points would move to a candidate medoid of `cluster`, given the other medoids.

    rows (m, n), the distances of m candidates; nearest and clusters as `_assign` -> (m, n) bool.
    Ties go to the lower cluster.
    """
    return (rows < nearest) | ((rows == nearest) & (cluster < clusters))


def _counts(problem: Problem, moved: tf.Tensor, clusters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """How many points share both medoid and label with a point, and how many its medoid.

    clusters (n,) before, moved (m, n): the points that each of m candidates takes over -> two
    (m, n), exact: sums of at most n ones.
    """
    same_cluster = tf.cast(clusters[:, None] == clusters[None, :], problem.same_label.dtype)
    same_both = same_cluster * problem.same_label
    moves = tf.cast(moved, problem.same_label.dtype)
    lost = moves @ tf.concat([same_both, same_cluster, problem.same_label], 1)
    lost_cell, lost_cluster, new_cell = tf.split(lost, 3, 1)
    n_cell = tf.where(moved, new_cell, tf.reduce_sum(same_both, 1) - lost_cell)
    new_cluster = tf.reduce_sum(moves, 1, keepdims=True)
    return n_cell, tf.where(moved, new_cluster, tf.reduce_sum(same_cluster, 1) - lost_cluster)


def _margin(problem: Problem, n_cell: tf.Tensor, n_cluster: tf.Tensor) -> tf.Tensor:
    """1 - agreement of m partitions with the labels, (m,) in [0, 1].

    n_cell, n_cluster (m, n) as `_counts`. Degenerate partitions are scored as in scikit-learn.
    """
    n_label = tf.reduce_sum(problem.same_label, 1)
    n = tf.cast(tf.shape(n_label)[0], n_label.dtype)
    if problem.margin == "const":
        # the authors' code compares labels with cluster numbers, which almost never agree
        is_equal = tf.reduce_all((n_cell == n_cluster) & (n_cell == n_label), 1)
        return 1 - tf.cast(is_equal, n_cell.dtype)
    if problem.margin == "ari":
        return 1 - tf.maximum(_adjusted_rand(n_cell, n_cluster, n_label, n), 0)
    # sums over points of log n are sums over cells of n log n
    in_cell, in_cluster = (tf.reduce_sum(tf.math.log(c), 1) for c in (n_cell, n_cluster))
    in_label = tf.reduce_sum(tf.math.log(n_label))
    of_clusters, of_labels = tf.math.log(n) - in_cluster / n, tf.math.log(n) - in_label / n
    information = tf.maximum((in_cell - in_cluster - in_label) / n + tf.math.log(n), 0)
    if problem.margin != "vmeasure" and problem.average == "geometric":
        mean = tf.sqrt(tf.maximum(of_clusters * of_labels, 0))
    else:
        mean = (of_clusters + of_labels) / 2
    if problem.margin == "ami":
        chance = tf.gather(problem.expected, tf.cast(n_cluster, tf.int32))
        chance = tf.reduce_sum(chance / n_cluster, 1)
        is_equal = tf.reduce_all((n_cell == n_cluster) & (n_cell == n_label), 1)
        agreement = tf.math.divide_no_nan(information - chance, mean - chance)
        agreement = tf.where(is_equal, tf.ones_like(mean), tf.clip_by_value(agreement, 0, 1))
    else:
        agreement = tf.math.divide_no_nan(information, mean)
    one_cluster, one_label = n_cluster[:, 0] == n, n_label[0] == n
    agreement = tf.where(one_cluster | one_label, tf.zeros_like(mean), agreement)
    return 1 - tf.where(one_cluster & one_label, tf.ones_like(mean), agreement)


def _adjusted_rand(
    n_cell: tf.Tensor, n_cluster: tf.Tensor, n_label: tf.Tensor, n: tf.Tensor
) -> tf.Tensor:
    """Adjusted Rand index of m partitions (m,); counts as in `_margin`."""
    both = tf.reduce_sum(n_cell, 1) - n  # sums of counts over points are numbers of pairs
    only_cluster = tf.reduce_sum(n_cluster, 1) - n - both
    only_label = tf.reduce_sum(n_label) - n - both
    neither = n * (n - 1) - both - only_cluster - only_label
    top = 2 * (both * neither - only_cluster * only_label)
    bottom = (both + only_label) * (only_label + neither)
    bottom += (both + only_cluster) * (only_cluster + neither)
    is_equal = (only_cluster == 0) & (only_label == 0)
    return tf.where(is_equal, tf.ones_like(top), tf.math.divide_no_nan(top, bottom))


def _expected_information(same_label: tf.Tensor) -> tf.Tensor:
    """Expected mutual information of a random cluster of a points with the labels, in nats.

    For a from 0 to n: (n + 1,). The sum over the clusters is the expected mutual information of
    random partitions with the same sizes (Vinh et al. 2010, equation 24a).
    """
    n_label = tf.reduce_sum(same_label, 1)
    n = tf.cast(tf.shape(same_label)[0], same_label.dtype)
    zero = tf.zeros(1, same_label.dtype)
    log_factorials = tf.concat([zero, tf.cumsum(tf.math.log(tf.range(1, n + 1)))], 0)

    def log_factorial(x):
        return tf.gather(log_factorials, tf.cast(tf.clip_by_value(x, 0, n), tf.int32))

    a = tf.range(n + 1)[:, None, None]
    b = n_label[None, :, None]  # a class of b points occurs b times: each time counts 1 / b
    both = tf.range(1, n + 1)[None, None, :]
    chance = log_factorial(a) + log_factorial(b) + log_factorial(n - a) + log_factorial(n - b)
    chance -= log_factorial(n) + log_factorial(both) + log_factorial(a - both)
    chance -= log_factorial(b - both) + log_factorial(n - a - b + both)
    terms = tf.exp(chance) * both / n * tf.math.log(n * both / (tf.maximum(a, 1) * b)) / b
    is_possible = (both <= tf.minimum(a, b)) & (both >= a + b - n)
    return tf.reduce_sum(tf.where(is_possible, terms, tf.zeros_like(terms)), [1, 2])
