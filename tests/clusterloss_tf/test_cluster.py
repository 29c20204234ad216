"""The search against literal loops, all sets of medoids and scikit-learn's scores."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import clusterloss as loops
from clusterloss_tf import cluster

# In seed 98 the two members of a cluster tie but for the last bit, which is scikit-learn's choice.
SEEDS = [seed for seed in range(101) if seed != 98]
MARGINS = ("nmi", "ami", "ari", "vmeasure", "const")


def batch(seed, n=None, n_classes=None):
    """Points in the plane, in float64, some of every class."""
    random = np.random.default_rng(seed)
    n = n or int(random.integers(6, 21))
    n_classes = n_classes or int(random.integers(2, 7))
    labels = np.concatenate([np.arange(n_classes), random.integers(0, n_classes, n - n_classes)])
    centres = random.normal(size=(n_classes, 2)) * 1.5
    points = centres[labels] + random.normal(size=(n, 2))
    order = random.permutation(n)
    return loops.distances_of(points[order]), labels[order]


@functools.cache
def graph(refine, margin, average):
    """The search as it stands, not compiled: one trace for batches of all sizes."""
    return tf.function(
        lambda distances, labels, gamma: cluster.facilities.python_function(
            distances, labels, gamma, refine, margin, average
        ),
        input_signature=[
            tf.TensorSpec((None, None), tf.float64),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((), tf.float64),
        ],
    )


def search(distances, labels, gamma, refine, margin="nmi", average="arithmetic"):
    """-> the set of medoids, the medoid of each point and of each class, the margin."""
    found = graph(refine, margin, average)(distances, labels, gamma)
    nearest, truth, delta = (tensor.numpy() for tensor in found)
    return sorted(set(nearest.tolist())), nearest, truth, float(delta)


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
def test_greedy_and_pam_score_as_the_loops_do(average):
    for seed in SEEDS:
        distances, labels = batch(seed)
        gamma = (0.0, 1.0, 5.0, 10.0)[seed % 4]
        options = (gamma, "nmi", average)
        medoids = loops.greedy(distances, labels, *options)
        for refine in ("greedy", "pam"):
            if refine == "pam":
                medoids = loops.pam(distances, labels, medoids, *options)
            found, *_ = search(distances, labels, gamma, refine, average=average)
            assert len(found) == len(set(labels.tolist()))
            score = loops.augmented_score(distances, labels, found, *options)
            expected = loops.augmented_score(distances, labels, medoids, *options)
            assert score == pytest.approx(expected, abs=1e-9), (seed, refine)


@pytest.mark.parametrize("margin", MARGINS[1:])
def test_the_other_margins_are_searched_as_in_the_loops(margin):
    for seed in range(10):
        distances, labels = batch(seed, n=14)
        medoids = loops.greedy(distances, labels, 4.0, margin)
        medoids = loops.pam(distances, labels, medoids, 4.0, margin)
        found, nearest, _, delta = search(distances, labels, 4.0, "pam", margin)
        scores = [
            loops.augmented_score(distances, labels, s, 4.0, margin) for s in (found, medoids)
        ]
        assert scores[0] == pytest.approx(scores[1], abs=1e-9), seed
        expected = loops.margin(labels, nearest, margin, "arithmetic")
        assert delta == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("refine", ["greedy", "pam", "swap"])
@pytest.mark.parametrize(("n", "n_classes"), [(10, 3), (12, 4)])
def test_no_search_beats_all_sets_of_medoids_which_beat_the_classes(n, n_classes, refine):
    for seed, gamma in itertools.product(range(3), (0.0, 5.0)):
        distances, labels = batch(seed, n, n_classes)
        exact = max(
            loops.augmented_score(distances, labels, list(medoids), gamma)
            for medoids in itertools.combinations(range(n), n_classes)
        )
        found, *_ = search(distances, labels, gamma, refine)
        assert loops.augmented_score(distances, labels, found, gamma) <= exact + 1e-9
        own = loops.class_medoids(distances, labels)
        assert exact >= loops.facility_score(distances, own) - 1e-9


def test_no_single_swap_improves_what_swaps_found():
    for seed in range(10):
        distances, labels = batch(seed, n=12, n_classes=4)
        found, *_ = search(distances, labels, 3.0, "swap")
        score = loops.augmented_score(distances, labels, found, 3.0)
        for k, c in itertools.product(range(4), set(range(12)) - set(found)):
            tried = [*found[:k], c, *found[k + 1 :]]
            assert loops.augmented_score(distances, labels, tried, 3.0) <= score + 1e-4


def test_the_medoid_of_a_class_is_nearest_to_its_members():
    distances, labels = batch(3)
    own = loops.class_medoids(distances, labels)
    _, _, truth, _ = search(distances, labels, 1.0, "greedy")
    order = list(dict.fromkeys(labels.tolist()))
    assert truth.tolist() == [own[order.index(label)] for label in labels]


def test_a_point_and_its_margin_belong_to_the_nearest_medoid():
    for seed in range(20):
        distances, labels = batch(seed)
        found, nearest, _, delta = search(distances, labels, 5.0, "pam")
        rows = np.arange(len(labels))
        np.testing.assert_array_equal(distances[rows, nearest], distances[:, found].min(1))
        assert delta == pytest.approx(loops.margin(labels, nearest, "nmi", "arithmetic"), abs=1e-9)


PARTITIONS = {
    "one cluster twice": ([0] * 6, [3] * 6),
    "one class, several clusters": ([0] * 6, [0, 0, 1, 1, 2, 2]),
    "one cluster, several classes": ([0, 0, 1, 1, 2, 2], [0] * 6),
    "all alone": ([0, 1, 2, 3, 4, 5], [4, 2, 0, 5, 1, 3]),
    "all alone against one": ([0, 1, 2, 3, 4, 5], [1] * 6),
    "equal but for the names": ([0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 1, 1]),
    "as unlike as can be": ([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]),
    "a point": ([0], [0]),
}
RANDOM = [
    np.random.default_rng(seed).integers(0, k, (2, 15)) for seed, k in enumerate((2, 3, 5, 9))
]


@pytest.mark.parametrize("average", ["arithmetic", "geometric"])
@pytest.mark.parametrize("margin", MARGINS)
def test_margins_are_those_of_scikit_learn(margin, average):
    for labels, clusters in [*PARTITIONS.values(), *RANDOM]:
        labels, clusters = np.array(labels), np.array(clusters)
        same, together = (
            tf.constant((p[:, None] == p[None]).astype(np.float64)) for p in (labels, clusters)
        )
        expected = cluster._expected_information(same)
        none = tf.zeros(0, tf.float64)
        problem = cluster.Problem(none, same, none, expected, margin, average)
        counts = tf.reduce_sum(same * together, 1)[None], tf.reduce_sum(together, 1)[None]
        found = float(cluster._margin(problem, *counts)[0])
        wanted = loops.margin(labels, clusters, margin, average)
        assert found == pytest.approx(wanted, abs=1e-9), (labels, clusters)


@pytest.mark.parametrize("refine", ["greedy", "pam", "swap"])
def test_the_compiled_search_is_the_search(refine):
    for seed in range(5):
        distances, labels = batch(seed, n=16, n_classes=4)
        tensors = tf.constant(distances), tf.constant(labels), tf.constant(3.0, tf.float64)
        compiled = cluster.facilities(*tensors, refine, "nmi", "arithmetic")
        plain = graph(refine, "nmi", "arithmetic")(*tensors)
        for a, b in zip(compiled, plain, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_equal_points_keep_to_the_lowest_slot_and_each_medoid_to_itself():
    # six points in two places; two classes: any choice has the same distances
    distances = loops.distances_of(np.repeat([[0.0], [1.0]], 3, axis=0))
    labels = np.array([0, 0, 0, 1, 1, 1])
    for refine in ("greedy", "pam", "swap"):
        found, nearest, truth, delta = search(distances, labels, 1.0, refine)
        assert len(found) == 2 and nearest[found].tolist() == found
        assert truth.tolist() == [0, 0, 0, 3, 3, 3] and 0 <= delta <= 1
