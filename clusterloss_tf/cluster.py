"""The search of the facility location loss (Song et al. 2017, section 3.4), without a gradient.

Medoids are chosen greedily, then moved by PAM or by swaps. Every array is (n, n) or (m, n), every
shape static: XLA compiles the whole search. A partition is no table of clusters by classes but two
equality matrices, "i and j share a label" and "i and j share a medoid"; products with them count
the points of each cell, so the margins are exact, without a hash, a sort or a number of classes.
What stands at a computed place is read by tf.gather: to compile x[i], XLA evaluates all before it.
"""

from typing import Literal, NamedTuple

import tensorflow as tf

Refine = Literal["greedy", "pam", "swap"]
Margin = Literal["nmi", "ami", "ari", "vmeasure", "const"]
Average = Literal["arithmetic", "geometric"]

N_SWEEPS = 5  # the original's pam_max_iter
N_ROWS = 8  # members of a cluster that PAM evaluates at once
ROUNDING = 1e-6  # a swap has to raise the score by more than this share of it


class Problem(NamedTuple):
    """What the search knows of a batch.

    distances (n, n), the diagonal -1, so that a medoid is nearest to itself whatever its duplicates
    are; same (n, n) 1.0 where two points share a label; gamma (); expected (n + 1,) see
    `_expected_information`, empty where the margin does without.
    """

    distances: tf.Tensor
    same: tf.Tensor
    gamma: tf.Tensor
    expected: tf.Tensor
    margin: Margin
    average: Average


@tf.function(jit_compile=True)
def facilities(
    distances: tf.Tensor,
    labels: tf.Tensor,
    gamma: tf.Tensor,
    refine: Refine,
    margin: Margin,
    average: Average,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The medoids that maximise facility score + gamma * margin, as far as the search finds them.

    distances (n, n) with a zero diagonal, labels (n,) -> the medoid of each point (n,) int32, the
    medoid of each point's class (n,) int32, the margin () in [0, 1].
    """
    n = _size(distances)
    is_same = labels[:, None] == labels[None, :]
    same = tf.cast(is_same, distances.dtype)
    within = tf.reduce_sum(same * distances, 1)  # (n,) cost of a point as the medoid of its class
    truth = tf.argmin(tf.where(is_same, within, distances.dtype.max), 1, output_type=tf.int32)
    earlier = tf.linalg.band_part(same, -1, 0) - tf.eye(n, dtype=same.dtype)
    n_classes = tf.math.count_nonzero(tf.reduce_sum(earlier, 1) == 0, dtype=tf.int32)
    expected = _expected_information(same) if margin == "ami" else tf.zeros(0, same.dtype)
    marked = distances - tf.eye(n, dtype=distances.dtype)
    problem = Problem(marked, same, gamma, expected, margin, average)
    slots = _greedy(problem, n_classes)
    if refine != "greedy":
        slots = (_pam if refine == "pam" else _swap)(problem, slots, n_classes)
    owner = _owners(problem, slots, n_classes)[1]
    together = tf.cast(owner[:, None] == owner[None, :], same.dtype)
    n_cell, n_cluster = tf.reduce_sum(together * same, 1), tf.reduce_sum(together, 1)
    delta = _margin(problem, n_cell[None], n_cluster[None])[0]
    # NaN has no place in an order: whatever it is, it must be one that can be read
    return tf.maximum(tf.gather(slots, owner), 0), tf.maximum(truth, 0), delta


def _size(square: tf.Tensor) -> tf.Tensor | int:
    """The number of points, known before it runs if it can be: loops keep their shapes by it."""
    return square.shape[0] or tf.shape(square)[0]


def _greedy(problem: Problem, n_classes: tf.Tensor) -> tf.Tensor:
    """Algorithm 1: adds the best point until there are n_classes -> slots (n,), the rest -1."""
    n = _size(problem.distances)

    def add(k, slots, nearest, owner):
        moved = problem.distances < nearest  # (n, n): row c, the points that c would take over
        scores = -tf.reduce_sum(tf.nn.relu(tf.minimum(problem.distances, nearest)), 1)
        scores += problem.gamma * _margin(problem, *_counts(problem, moved, owner))
        scores = tf.where(nearest < 0, -scores.dtype.max, scores)  # medoids already
        best = tf.argmax(scores, output_type=tf.int32)
        row = tf.gather(problem.distances, best)
        slots = tf.where(tf.range(n) == k, best, slots)
        return k + 1, slots, tf.minimum(row, nearest), tf.where(row < nearest, k, owner)

    start = (0, tf.fill([n], -1), tf.fill([n], problem.distances.dtype.max), tf.fill([n], -1))
    return tf.while_loop(lambda k, *_: k < n_classes, add, start)[1]


def _pam(problem: Problem, slots: tf.Tensor, n_classes: tf.Tensor) -> tf.Tensor:
    """Algorithm 2 as the original has it: N_SWEEPS sweeps, every slot takes its best member.

    The facility term is that of the members that the cluster had before the sweep, the margin that
    of the new medoid among all others; a slot moves even where the score falls.
    """
    n = _size(problem.distances)

    def sweep(i, slots):
        owner = _owners(problem, slots, n_classes)[1]
        together = tf.cast(owner[:, None] == owner[None, :], problem.same.dtype)
        # of two members the costs are equal, and must be to the last bit: the first one wins
        costs = tf.reduce_sum(together * tf.nn.relu(problem.distances), 1)
        members = tf.argsort(owner, stable=True)  # of slot 0, then of slot 1, ...
        sizes = tf.reduce_sum(tf.cast(owner == tf.range(n)[:, None], tf.int32), 1)
        ends = tf.cumsum(sizes)

        def move(k, slots):
            others = _owners(problem, slots, n_classes, k)

            def evaluate(first, best, best_score):
                place = first + tf.range(N_ROWS)
                rows = tf.gather(members, tf.minimum(place, n - 1))
                moved = _takes(tf.gather(problem.distances, rows), k, *others)
                scores = problem.gamma * _margin(problem, *_counts(problem, moved, others[1]))
                scores -= tf.gather(costs, rows)
                scores = tf.where(place < tf.gather(ends, k), scores, -scores.dtype.max)
                j = tf.argmax(scores, output_type=tf.int32)
                score = tf.reduce_max(scores)
                best = tf.where(score > best_score, tf.gather(rows, j), best)
                return first + N_ROWS, best, tf.maximum(score, best_score)

            end, old = tf.gather(ends, k), tf.gather(slots, k)
            start = (end - tf.gather(sizes, k), old, -costs.dtype.max)
            best = tf.while_loop(lambda first, *_: first < end, evaluate, start)[1]
            return k + 1, tf.where(tf.range(n) == k, best, slots)

        return i + 1, tf.while_loop(lambda k, _: k < n_classes, move, (0, slots))[1]

    return tf.while_loop(lambda i, _: i < N_SWEEPS, sweep, (0, slots))[1]


def _swap(problem: Problem, slots: tf.Tensor, n_classes: tf.Tensor) -> tf.Tensor:
    """Every slot in turn takes the point with the highest score of all: the score never falls.

    Not in the paper, whose PAM knows members and a surrogate only. Ends with a sweep that changes
    nothing, after N_SWEEPS at most.
    """
    n = _size(problem.distances)

    def move(k, slots):
        nearest, owner = _owners(problem, slots, n_classes, k)
        moved = _takes(problem.distances, k, nearest, owner)
        scores = -tf.reduce_sum(tf.nn.relu(tf.minimum(problem.distances, nearest)), 1)
        scores += problem.gamma * _margin(problem, *_counts(problem, moved, owner))
        scores = tf.where(nearest < 0, -scores.dtype.max, scores)
        best = tf.argmax(scores, output_type=tf.int32)
        present = tf.gather(scores, tf.gather(slots, k))
        is_better = tf.reduce_max(scores) > present + ROUNDING * tf.abs(present)
        return k + 1, tf.where((tf.range(n) == k) & is_better, best, slots)

    def sweep(i, slots, _):
        after = tf.while_loop(lambda k, _: k < n_classes, move, (0, slots))[1]
        return i + 1, after, tf.reduce_any(after != slots)

    def is_going(i, _, is_moving):
        return (i < N_SWEEPS) & is_moving

    return tf.while_loop(is_going, sweep, (0, slots, True))[1]


def _owners(
    problem: Problem, slots: tf.Tensor, n_classes: tf.Tensor, without: tf.Tensor | int = -1
) -> tuple[tf.Tensor, tf.Tensor]:
    """The distance to the nearest medoid (n,), and its slot (n,), the lowest of equal ones.

    without: a slot that is left out.
    """
    numbers = tf.range(_size(problem.distances))
    is_used = (numbers < n_classes) & (numbers != without)
    rows = tf.gather(problem.distances, tf.maximum(slots, 0))
    rows = tf.where(is_used[:, None], rows, rows.dtype.max)
    return tf.reduce_min(rows, 0), tf.argmin(rows, 0, output_type=tf.int32)


def _takes(rows: tf.Tensor, slot: tf.Tensor, nearest: tf.Tensor, owner: tf.Tensor) -> tf.Tensor:
    """Which points would go to a candidate in `slot`, given their medoids in the other slots.

    rows (m, n), the candidates' distances -> (m, n) bool. Equal distances: the lower slot.
    """
    return (rows < nearest) | ((rows == nearest) & (slot < owner))


def _counts(problem: Problem, moved: tf.Tensor, owner: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """How many points share medoid and label with a point, and how many its medoid.

    moved (m, n): what each of m candidates takes over from the medoids `owner` (n,) -> two (m, n),
    exact: sums of at most n ones.
    """
    together = tf.cast(owner[:, None] == owner[None, :], problem.same.dtype)
    cells = together * problem.same
    moves = tf.cast(moved, problem.same.dtype)
    gone = moves @ tf.concat([cells, together, problem.same], 1)
    gone_cell, gone_cluster, new_cell = tf.split(gone, 3, 1)
    n_cell = tf.where(moved, new_cell, tf.reduce_sum(cells, 1) - gone_cell)
    new_cluster = tf.reduce_sum(moves, 1, keepdims=True)
    return n_cell, tf.where(moved, new_cluster, tf.reduce_sum(together, 1) - gone_cluster)


def _margin(problem: Problem, n_cell: tf.Tensor, n_cluster: tf.Tensor) -> tf.Tensor:
    """1 - agreement of m partitions with the labels, (m,) in [0, 1].

    n_cell, n_cluster (m, n): see `_counts`. Degenerate partitions are scored as scikit-learn does.
    """
    n_label = tf.reduce_sum(problem.same, 1)
    n = tf.cast(tf.shape(n_label)[0], n_label.dtype)
    if problem.margin == "const":
        # the authors' code compares labels with numbers of slots, which hardly ever agree
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
    """Of m partitions (m,); counts as in `_margin`. Sums of counts over points count pairs."""
    both = tf.reduce_sum(n_cell, 1) - n
    only_cluster = tf.reduce_sum(n_cluster, 1) - n - both
    only_label = tf.reduce_sum(n_label) - n - both
    neither = n * (n - 1) - both - only_cluster - only_label
    top = 2 * (both * neither - only_cluster * only_label)
    bottom = (both + only_label) * (only_label + neither)
    bottom += (both + only_cluster) * (only_cluster + neither)
    is_equal = (only_cluster == 0) & (only_label == 0)
    return tf.where(is_equal, tf.ones_like(top), tf.math.divide_no_nan(top, bottom))


def _expected_information(same: tf.Tensor) -> tf.Tensor:
    """What a cluster of a points shares with the labels by chance, for a of 0 to n: (n + 1,) nats.

    The sum over the clusters is the expected mutual information of random partitions with the same
    sizes (Vinh et al. 2010, equation 24a).
    """
    n_label = tf.reduce_sum(same, 1)
    n = tf.cast(tf.shape(same)[0], same.dtype)
    zero = tf.zeros(1, same.dtype)
    log_factorials = tf.concat([zero, tf.cumsum(tf.math.log(tf.range(1, n + 1)))], 0)

    def log_factorial(x):
        return tf.gather(log_factorials, tf.cast(tf.clip_by_value(x, 0, n), tf.int32))

    a = tf.range(n + 1)[:, None, None]
    b = n_label[None, :, None]  # a class of b points is met b times, so each time counts 1 / b
    both = tf.range(1, n + 1)[None, None, :]
    chance = log_factorial(a) + log_factorial(b) + log_factorial(n - a) + log_factorial(n - b)
    chance -= log_factorial(n) + log_factorial(both) + log_factorial(a - both)
    chance -= log_factorial(b - both) + log_factorial(n - a - b + both)
    terms = tf.exp(chance) * both / n * tf.math.log(n * both / (tf.maximum(a, 1) * b)) / b
    is_possible = (both <= tf.minimum(a, b)) & (both >= a + b - n)
    return tf.reduce_sum(tf.where(is_possible, terms, tf.zeros_like(terms)), [1, 2])
