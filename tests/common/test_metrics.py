from itertools import permutations

import numpy as np
import pytest
import sklearn.metrics

from common import metrics

PARTITION_SCORES = [
    metrics.nmi,
    metrics.ami,
    metrics.adjusted_rand,
    metrics.clustering_accuracy,
    metrics.purity,
]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("score", PARTITION_SCORES)
def test_renumbered_labels_score_1(score):
    labels = np.array([0, 0, 1, 1, 1, 2])
    assert score(labels, np.array([7, 7, 0, 0, 0, 3])) == pytest.approx(1)


@pytest.mark.parametrize("score", PARTITION_SCORES)
def test_score_is_invariant_to_renumbering(score, rng):
    labels, clusters = rng.integers(0, 5, 100), rng.integers(0, 7, 100)
    renamed = score(rng.permutation(5)[labels], 10 * rng.permutation(7)[clusters])
    assert renamed == pytest.approx(score(labels, clusters))


@pytest.mark.parametrize("score", [metrics.nmi, metrics.adjusted_rand, metrics.clustering_accuracy])
def test_score_is_symmetric(score, rng):
    labels, clusters = rng.integers(0, 4, 100), rng.integers(0, 6, 100)
    assert score(labels, clusters) == pytest.approx(score(clusters, labels))


def test_nmi_uses_the_arithmetic_mean_of_entropies():
    # 4 items; clusters split one of two classes in half: I = ln 2, H = ln 2 and 1.5 ln 2
    assert metrics.nmi([0, 0, 1, 1], [0, 0, 1, 2]) == pytest.approx(1 / 1.25)


def test_adjusted_rand_of_one_cluster_is_0():
    assert metrics.adjusted_rand([0, 0, 1, 1], [0, 0, 0, 0]) == 0


def test_accuracy_matches_the_best_of_all_permutations(rng):
    labels, clusters = rng.integers(0, 4, 40), rng.integers(0, 4, 40)
    best = max(np.mean(np.array(p)[clusters] == labels) for p in permutations(range(4)))
    assert metrics.clustering_accuracy(labels, clusters) == best


def test_accuracy_counts_extra_clusters_as_errors():
    # cluster 0 is class 0 (3 of 4), cluster 2 is class 1 (2 items), cluster 1 is unmatched
    assert metrics.clustering_accuracy([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 2, 2]) == 5 / 6
    assert metrics.purity([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 2, 2]) == 1


def test_accuracy_counts_extra_classes_as_errors():
    assert metrics.clustering_accuracy([0, 0, 1, 1, 2], [0, 0, 1, 1, 1]) == 4 / 5


def test_accuracy_matches_one_to_one_and_purity_does_not():
    # both clusters are mostly class 0: one is matched to it, the other to its one item of class 1
    labels, clusters = [0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1]
    assert metrics.clustering_accuracy(labels, clusters) == 4 / 6
    assert metrics.purity(labels, clusters) == 5 / 6


@pytest.mark.parametrize("score", PARTITION_SCORES)
@pytest.mark.parametrize(
    "labels, clusters",
    [
        ([], []),
        ([0, 1], [0, 1, 1]),
        ([[0, 1]], [[0, 1]]),
        ([0, -1], [0, 1]),
        ([0, 1], [0.5, 1.0]),
    ],
    ids=["empty", "lengths", "two axes", "unlabeled", "fractions"],
)
def test_invalid_partitions_are_refused_in_one_line(score, labels, clusters):
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        score(
            np.array(labels, None if labels else int), np.array(clusters, None if clusters else int)
        )


def test_recall_excludes_the_query():
    embeddings = np.array([[0.0], [1.0], [2.1]])  # nearest other: 0->1, 1->0, 2->1
    labels = np.array([0, 1, 0])
    assert metrics.recall_at_k(embeddings, labels, ks=(1, 2)) == {1: 0.0, 2: 2 / 3}


def test_recall_excludes_the_query_among_its_duplicates():
    # all at one point: the query is excluded by its index, not by its distance
    assert metrics.recall_at_k(np.zeros((4, 3)), np.arange(4), ks=(1, 3)) == {1: 0.0, 3: 0.0}


def test_recall_with_large_k_uses_all_others():
    embeddings, labels = np.array([[0.0], [1.0], [5.0]]), np.array([0, 1, 0])
    assert metrics.recall_at_k(embeddings, labels, ks=(2, 8)) == {2: 2 / 3, 8: 2 / 3}


def slow_ranking(embeddings, i):
    distances = np.linalg.norm(embeddings - embeddings[i], axis=1)
    return [j for j in np.argsort(distances) if j != i]


def test_recall_matches_a_slow_loop(rng):
    embeddings, labels = rng.normal(size=(60, 4)), rng.integers(0, 6, 60)
    for k, recall in metrics.recall_at_k(embeddings, labels, ks=(1, 2, 5)).items():
        hits = [labels[i] in labels[slow_ranking(embeddings, i)[:k]] for i in range(60)]
        assert recall == np.mean(hits)


def test_map_at_r_by_hand():
    # R is 2. From 0: 1 (hit, 1/1), 2.1 (miss) -> 1/2. From 1: 0 (hit), 2.1 (miss) -> 1/2.
    # From 3.3: 2.1 (miss), 1 (hit, 1/2) -> 1/4. 2.1 is alone in its class.
    embeddings = np.array([[0.0], [1.0], [2.1], [3.3]])
    assert metrics.map_at_r(embeddings, np.array([0, 0, 1, 0])) == (1 / 2 + 1 / 2 + 1 / 4) / 3


def test_map_at_r_matches_a_slow_loop(rng):
    embeddings, labels = rng.normal(size=(50, 3)), rng.integers(0, 5, 50)
    scores = []
    for i in range(50):
        same = labels[slow_ranking(embeddings, i)] == labels[i]
        r = same.sum()
        scores.append(sum(same[: j + 1].mean() for j in range(r) if same[j]) / r)
    assert metrics.map_at_r(embeddings, labels) == pytest.approx(np.mean(scores))


def test_retrieval_scores_match_the_single_functions(rng):
    embeddings, labels = rng.normal(size=(60, 4)), rng.integers(0, 6, 60)
    scores = metrics.retrieval_scores(embeddings, labels)
    for k, recall in metrics.recall_at_k(embeddings, labels).items():
        assert scores[f"recall_at_{k}"] == recall
    assert scores["map_at_r"] == metrics.map_at_r(embeddings, labels)
    precisions = []
    for i in range(60):
        same = labels[slow_ranking(embeddings, i)] == labels[i]
        precisions.append(same[: same.sum()].mean())
    assert scores["r_precision"] == pytest.approx(np.mean(precisions))


def test_gallery_is_searched_without_excluding_the_query(rng):
    # queries at 0 and 5; the class 3 of the second is not in the gallery
    gallery = np.array([[0.0], [1.0], [4.0]]), np.array([1, 0, 0])
    scores = metrics.retrieval_scores(np.array([[0.0], [5.0]]), np.array([0, 3]), (1, 2), gallery)
    assert scores["recall_at_1"] == 0 and scores["recall_at_2"] == 1 / 2
    # R is 2 for the query at 0: a miss, then a hit of precision 1/2, over 2
    assert (scores["map_at_r"], scores["r_precision"]) == (1 / 4, 1 / 2)
    assert scores["n_unmatched"] == 1
    with pytest.raises(ValueError, match="the gallery's"):
        metrics.retrieval_scores(np.eye(2), np.arange(2), gallery=gallery)


def test_items_alone_in_their_class_count_for_recall_only():
    embeddings = np.array([[0.0], [1.0], [9.0]])
    scores = metrics.retrieval_scores(embeddings, np.array([0, 0, 1]))
    assert scores["recall_at_1"] == 2 / 3 and scores["map_at_r"] == 1 and scores["n_unmatched"] == 1
    assert "map_at_r" not in metrics.retrieval_scores(embeddings, np.arange(3))


def test_blocks_of_distances_are_joined(rng):
    # 4,000 items are 4 blocks. On a line, two of each class side by side, pairs far apart.
    embeddings = (np.repeat(np.arange(2000.0), 2) + np.tile([0, 0.1], 2000))[:, None]
    order = rng.permutation(4000)
    embeddings, labels = embeddings[order], order // 2
    assert metrics.recall_at_k(embeddings, labels, ks=(1,)) == {1: 1.0}
    assert metrics.map_at_r(embeddings, labels) == 1.0


def test_recall_is_exact_far_from_the_origin(rng):
    near, labels = rng.normal(size=(50, 3)), rng.integers(0, 4, 50)
    far = metrics.recall_at_k(near + 1e6, labels)
    assert far == metrics.recall_at_k(near, labels)


# ---- ties of distances


def test_tied_neighbors_count_by_their_probability():
    # 0 is as near to 1 as to -1: one of two has its label, so 1/2. 1 and -1: nearest is 0.
    embeddings, labels = np.array([[0.0], [1.0], [-1.0]]), np.array([0, 0, 1])
    assert metrics.recall_at_k(embeddings, labels, ks=(1, 2)) == {1: 1.5 / 3, 2: 2 / 3}


def test_retrieval_among_equal_embeddings_by_hand():
    # Five equal items, labels a a b b b. The others of an a, R = 1: a b b b, of which the first is
    # an a with 1/4, one of two with 1/2. The others of a b, R = 2: a a b b, of which the first is a
    # b with 1/2, one of two with 1 - 1/2 * 1/3 = 5/6.
    labels = np.array(list("aabbb"))
    scores = metrics.retrieval_scores(np.ones((5, 2)), labels, ks=(1, 2))
    assert scores["recall_at_1"] == pytest.approx((2 * 1 / 4 + 3 * 1 / 2) / 5)
    assert scores["recall_at_2"] == pytest.approx((2 * 1 / 2 + 3 * 5 / 6) / 5)
    assert scores["r_precision"] == pytest.approx((2 * 1 / 4 + 3 * 1 / 2) / 5)
    # MAP@R of a: 1/4. Of b: rank 1 is a b with 1/2 (precision 1); rank 2 with 1/2, then rank 1 is
    # one too with 1/3 (precision 1, else 1/2): (1/2 + 1/2 * (1/3 + 2/3 * 1/2)) / 2 = 5/12
    assert scores["map_at_r"] == pytest.approx((2 * 1 / 4 + 3 * 5 / 12) / 5)


def all_rankings(embeddings, i):
    """The rankings of the others for every order of the ties, each equally often."""
    squares = ((embeddings - embeddings[i]) ** 2).sum(1)
    others = [j for j in range(len(embeddings)) if j != i]
    return [sorted(order, key=squares.__getitem__) for order in permutations(others)]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_scores_are_means_over_all_orders_of_ties(rng, kind):
    embeddings, labels = rng.integers(0, 2, (7, 2)).astype(kind), np.array([0, 0, 0, 1, 1, 2, 3])
    recalls, averages, precisions = [], [], []
    for i in range(7):
        same = np.array([labels[order] == labels[i] for order in all_rankings(embeddings, i)])
        recalls.append([same[:, :k].any(1).mean() for k in (1, 2, 4)])
        r = same[0].sum()
        if r:
            hits = same[:, :r] * same[:, :r].cumsum(1) / np.arange(1, r + 1)
            averages.append(hits.sum(1).mean() / r)
            precisions.append(same[:, :r].mean())
    scores = metrics.retrieval_scores(embeddings, labels, (1, 2, 4))
    assert [scores[f"recall_at_{k}"] for k in (1, 2, 4)] == pytest.approx(np.mean(recalls, axis=0))
    assert scores["map_at_r"] == pytest.approx(np.mean(averages))
    assert scores["r_precision"] == pytest.approx(np.mean(precisions))
    assert metrics.recall_at_k(embeddings, labels, (4,))[4] == scores["recall_at_4"]


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.normal(size=(500, 33))[rng.integers(0, 60, 2100)].astype(np.float32),
        lambda rng: rng.normal(size=(500, 33))[rng.integers(0, 500, 2100)],
        lambda rng: rng.integers(0, 3, (2100, 5)).astype(np.float32),
        lambda rng: rng.integers(0, 2, (2100, 12)) / 3,
        lambda rng: np.full((2100, 7), 0.1, np.float32),
        lambda rng: rng.normal(size=(2100, 64)).astype(np.float32),
    ],
    ids=["60 points", "500 points", "grid", "thirds", "one point", "no ties"],
)
def test_order_of_the_rows_makes_no_difference(rng, make):
    embeddings, labels = make(rng), rng.integers(0, 9, 2100)
    order = rng.permutation(2100)
    shuffled = embeddings[order], labels[order]
    scores = metrics.retrieval_scores(embeddings, labels)
    assert metrics.retrieval_scores(*shuffled) == scores
    recalls = metrics.recall_at_k(embeddings, labels)
    assert metrics.recall_at_k(*shuffled) == recalls
    assert [scores[f"recall_at_{k}"] for k in recalls] == pytest.approx(list(recalls.values()))
    gallery, queries = (embeddings[:1500], labels[:1500]), (embeddings[1500:], labels[1500:])
    mixed = tuple(array[order[order < 1500]] for array in (embeddings, labels))
    first = metrics.retrieval_scores(*queries, gallery=gallery)
    assert metrics.retrieval_scores(*queries, gallery=mixed) == first
    total = metrics.mean_average_precision(*queries, gallery)
    assert metrics.mean_average_precision(*queries, mixed) == total


def test_equal_embeddings_of_random_labels_score_as_chance(rng):
    # by position: the first of equal items have recall 1 if the labels are sorted
    labels = np.repeat(np.arange(10), 30)
    scores = metrics.retrieval_scores(np.zeros((300, 4), np.float32), labels)
    assert scores["recall_at_1"] == pytest.approx(29 / 299)
    assert scores["r_precision"] == pytest.approx(29 / 299)


def test_integers_far_from_the_origin_tie_in_float32():
    # 1 of 2 neighbors of each point on a line has its label, except at the ends: miss and hit
    embeddings = np.arange(1001, 1101, dtype=np.float32)[:, None]
    labels = np.arange(100) // 2
    assert metrics.recall_at_k(embeddings, labels, (1,))[1] == (98 / 2 + 2) / 100


def test_average_precision_by_hand():
    # ranks: miss, then hit and miss at the same distance, then hit. The first hit is at rank 2 or 3
    # with precision 1/2 or 1/3, the last one at rank 4 with 2/4.
    gallery = np.array([[0.0], [1.0], [-1.0], [2.0]]), np.array([1, 0, 1, 0])
    score = metrics.mean_average_precision(np.zeros((1, 1)), np.array([0]), gallery)
    assert score == pytest.approx(((1 / 2 + 1 / 3) / 2 + 2 / 4) / 2)
    assert metrics.mean_average_precision(np.zeros((1, 1)), np.array([7]), gallery) == 0


@pytest.mark.parametrize("score", [metrics.recall_at_k, metrics.map_at_r])
@pytest.mark.parametrize(
    "embeddings, labels",
    [
        (np.zeros((0, 2)), np.zeros(0, int)),
        (np.zeros((1, 2)), np.zeros(1, int)),
        (np.zeros((3, 2)), np.zeros(2, int)),
        (np.zeros(3), np.zeros(3, int)),
        (np.array([[0.0], [np.nan]]), np.zeros(2, int)),
        (np.zeros((2, 0)), np.zeros(2, int)),
        (np.eye(2), np.array([0, np.nan])),
        (np.eye(2), np.array([0, None])),
    ],
    ids=["empty", "one", "lengths", "one axis", "nan", "no axis", "nan label", "object label"],
)
def test_invalid_embeddings_are_refused_in_one_line(score, embeddings, labels):
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        score(embeddings, labels)


def test_map_at_r_without_pairs_and_recall_at_0_are_refused():
    with pytest.raises(ValueError, match="no two"):
        metrics.map_at_r(np.eye(3), np.arange(3))
    with pytest.raises(ValueError, match="at least 1"):
        metrics.recall_at_k(np.eye(3), np.arange(3), ks=(0, 1))


def test_mean_iou_by_hand():
    truth = np.array([[0, 0], [1, 1]])
    predicted = np.array([[0, 1], [1, 1]])  # class 0: 1 of 2; class 1: 2 of 3; class 2 in neither
    scores = metrics.mean_iou(truth, predicted, 3)
    assert scores["miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores["per_class"] == pytest.approx([1 / 2, 2 / 3, np.nan], nan_ok=True)
    assert scores["pixel_accuracy"] == 3 / 4


def test_iou_of_a_class_only_predicted_is_0():
    scores = metrics.mean_iou(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), 2)
    assert scores["per_class"] == [3 / 4, 0]


def test_ignored_pixels_are_left_out():
    truth = np.array([0, 1, 255, 255], np.uint8)
    predicted = np.array([0, 1, 1, 99])
    assert metrics.mean_iou(truth, predicted, 2, ignore=255)["miou"] == 1
    assert metrics.pixel_accuracy(truth, predicted, ignore=255) == 1
    assert metrics.pixel_accuracy(np.array([0, -1]), np.array([0, 0]), ignore=-1) == 1


def test_images_of_different_sizes_are_pooled(rng):
    truth = [rng.integers(0, 3, (4, 5)), rng.integers(0, 3, (2, 2))]
    predicted = [rng.integers(0, 3, (4, 5)), rng.integers(0, 3, (2, 2))]
    t, p = (np.concatenate([image.ravel() for image in images]) for images in (truth, predicted))
    scores = metrics.mean_iou(truth, iter(predicted), 3)
    assert scores["per_class"] == pytest.approx(sklearn.metrics.jaccard_score(t, p, average=None))
    assert scores["pixel_accuracy"] == metrics.pixel_accuracy(truth, predicted) == np.mean(t == p)


@pytest.mark.parametrize(
    "truth, predicted, message",
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "shape"),
        ([np.zeros(2, int)], [], "shorter"),
        (np.array([0, 2]), np.array([0, 1]), "truth has class 2"),
        (np.array([0, 1]), np.array([0, -1]), "predicted has class -1"),
        (np.array([0.0, 1.0]), np.array([0, 1]), "integers"),
        (np.array([255, 255]), np.array([0, 1]), "no pixel"),
        (np.array([], int), np.array([], int), "no pixel"),
    ],
)
def test_invalid_segmentations_are_refused(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        metrics.mean_iou(truth, predicted, 2, ignore=255)


@pytest.mark.parametrize("n_classes, kind", [(3, np.uint8), (200, np.uint8), (300, np.int64)])
def test_confusion_matches_a_slow_loop(rng, n_classes, kind):
    truth, predicted = (rng.integers(0, n_classes, (20, 30)).astype(kind) for _ in range(2))
    truth[0, :5] = 255 if kind == np.uint8 else 1000
    counts = np.zeros((n_classes, n_classes), int)
    for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
        if t != truth[0, 0]:
            counts[t, p] += 1
    matrix = metrics.confusion(truth, predicted, n_classes, ignore=int(truth[0, 0]))
    assert np.array_equal(matrix, counts)


def test_confusion_scores_by_hand():
    # class 0: 3 of 4 correct, IoU 3 / 5; class 1: 1 of 2, IoU 1 / 3; class 2: unused
    scores = metrics.confusion_scores(np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]]))
    assert scores["miou"] == pytest.approx((3 / 5 + 1 / 3) / 2)
    assert scores["per_class"] == pytest.approx([3 / 5, 1 / 3, np.nan], nan_ok=True)
    assert scores["pixel_accuracy"] == pytest.approx(4 / 6)
    assert scores["mean_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert scores["weighted_iou"] == pytest.approx((4 * 3 / 5 + 2 * 1 / 3) / 6)
    assert np.isfinite([v for k, v in scores.items() if k != "per_class"]).all()


def test_pixel_accuracy_without_pixels_is_refused():
    with pytest.raises(ValueError, match="no pixel"):
        metrics.pixel_accuracy([], [])


def test_agreement_by_hand():
    # clusters 0, 0, 1, 2 of labels 0, 0, 1, 1: the image in the third cluster is an error, yet pure
    scores = metrics.agreement([0, 0, 1, 1], [0, 0, 1, 2])
    assert scores["acc"] == 3 / 4 and scores["purity"] == 1
    # entropies of labels log 2, of clusters 1.5 log 2, in common log 2: 1 / mean(1, 1.5)
    assert scores["nmi"] == pytest.approx(0.8)
    # pairs together: 1 in both, 2 by labels, 1 by clusters, of 6: (1 - 1/3) / (1.5 - 1/3)
    assert scores["ari"] == pytest.approx(4 / 7)
