"""Public functions that need no framework return plain Python values: json.dumps accepts them."""

import numpy as np
import pytest

import clusterloss_tf.evaluate
import deepcluster_torch.evaluate
import dti_torch.evaluate
from common import bsds, duplicates, images, metrics
from common.bsds import boundaries
from common.report import formatting, scores
from tests.plain_values import assert_plain, fits

rng = np.random.default_rng(0)
labels, clusters = rng.integers(0, 3, 40), rng.integers(0, 4, 40).astype(np.int32)
embeddings = rng.normal(size=(40, 3)).astype(np.float32)
segments = rng.integers(0, 3, (12, 14))
truths = [rng.integers(0, 3, (12, 14)).astype(np.uint8) for _ in range(2)]
edges = [rng.random((12, 14)) < 0.1 for _ in range(3)]
numbers = {"acc": 0.5, "nmi": 0.25, "n": 40, "baseline": {"name": "k-means", "acc": 0.4}}
predictions = {"labels": labels, "clusters": clusters, "embeddings": embeddings}
predictions |= {"kmeans": np.stack([clusters] * 3), "distances": embeddings[:, :1]}

CALLS = [
    (metrics.nmi, labels, clusters),
    (metrics.ami, labels, clusters),
    (metrics.adjusted_rand, labels, clusters),
    (metrics.clustering_accuracy, labels, clusters),
    (metrics.purity, labels, clusters),
    (metrics.agreement, labels, clusters),
    (metrics.recall_at_k, embeddings, labels, np.array([1, 2])),
    (metrics.map_at_r, embeddings, labels),
    (metrics.retrieval_scores, embeddings, labels, np.array([1, 2])),
    (metrics.retrieval_scores, embeddings, labels, (1,), (embeddings[:9], labels[:9] + 5)),
    (metrics.mean_average_precision, embeddings, labels, (embeddings, labels)),
    (metrics.mean_iou, segments, truths[0], 4),
    (metrics.confusion_scores, metrics.confusion(truths[0], segments, 4)),
    (metrics.pixel_accuracy, truths, [segments, segments]),
    (metrics.pixel_accuracy, truths[0], segments, 1),
    (bsds.region_scores, segments, truths),
    (bsds.benchmark, [np.stack([segments] * 2)], [truths]),
    (bsds.best_overlap_miou, [segments], [truths]),
    (bsds.overlaps, segments, truths),
    (bsds.pool, [bsds.overlaps(segments, truths)]),
    (boundaries.counts, edges[0], edges[1:]),
    (duplicates.count_distinct, segments, 9),
    (duplicates.few_distinct, truths, 9),
    (duplicates.is_one_color, segments[..., None]),
    (duplicates.one_color, [np.True_, np.False_]),
    (images.fit_within, (np.int64(30), np.int64(40)), 20),
    (images.is_single_image, segments),
    (formatting.format_number, np.float64(0.5)),
    (formatting.format_duration, np.float64(90)),
    (formatting.is_number, np.float64(0.5)),
    (scores.sentence, numbers, 40, 3),
    (clusterloss_tf.evaluate.evaluate, predictions),
    (deepcluster_torch.evaluate.evaluate, predictions | {"n_clusters": np.array(4)}),
    (deepcluster_torch.evaluate.balance, np.array([3, 0, 5])),
    (dti_torch.evaluate.evaluate, predictions | {"distances": rng.random((40, 4))}),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)


def test_recall_has_plain_keys():
    recalls = metrics.recall_at_k(embeddings, labels, np.array([1, 2]))
    assert [type(k) for k in recalls] == [int, int]


def test_check_tells_numpy_scalars_from_plain_values():
    assert fits({"a": 1.5}, dict[str, float]) and fits((1, None), tuple[int, str | None])
    assert not fits(np.float64(1), float) and not fits({"a": np.int64(1)}, dict)
    assert not fits({np.int64(1): 0.5}, dict[int, float]) and not fits([np.True_], list[bool])
    assert not fits(True, float)
