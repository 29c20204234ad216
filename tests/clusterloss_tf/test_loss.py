"""The losses against loops, finite differences and invariances."""

import numpy as np
import pytest

from benchmarks import clusterloss as loops
from clusterloss_tf import BaselineLoss, FacilityLocationLoss
from clusterloss_tf import loss as losses
from clusterloss_tf.loss import facility_location
from common.tf import keras, tf

REFINES = ("greedy", "pam", "swap")


def batch(seed=0, n=12, n_classes=4, dim=3):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % n_classes)
    return random.normal(size=(n, dim)) + random.normal(size=(n_classes, dim))[labels], labels


def value(embeddings, labels, *options, **keywords):
    return float(tf.reduce_sum(facility_location(embeddings, labels, *options, **keywords)))


def gradient(function, embeddings):
    embeddings = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        loss = tf.reduce_sum(function(embeddings))
    return float(loss), tape.gradient(loss, embeddings).numpy()


# ---- facility location


@pytest.mark.parametrize("refine", ["greedy", "pam"])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 10.0])
def test_loss_and_gradient_match_loops(gamma, refine):
    for seed in range(8):
        embeddings, labels = batch(seed)
        expected = loops.loss_and_gradient(embeddings, labels, gamma, refine)
        loss, slope = gradient(
            lambda x, y=labels: facility_location(x, y, gamma, refine), embeddings
        )
        assert loss == pytest.approx(expected[0], abs=1e-9)
        np.testing.assert_allclose(slope, expected[1], atol=1e-9)


@pytest.mark.slow
def test_many_centers_match_loops():
    # the original's own test has 128 points around 64 centers, which takes the loops minutes
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 2)
    points = random.uniform(-10, 10, (12, 2))[labels] + random.normal(size=(24, 2))
    points = (points - points.mean(0)) / points.std(0)
    for refine in ("greedy", "pam"):
        expected, _ = loops.loss_and_gradient(points, labels, 10.0, refine)
        assert value(points.astype(np.float32), labels, 10.0, refine) == pytest.approx(
            expected, rel=1e-5
        )


@pytest.mark.parametrize("refine", REFINES)
def test_gradient_matches_finite_differences(refine):
    embeddings, labels = batch(1)
    _, slope = gradient(lambda x: facility_location(x, labels, 3.0, refine), embeddings)
    for i in np.ndindex(embeddings.shape):
        step = np.zeros_like(embeddings)
        step[i] = 1e-6  # too small to change the medoids
        ends = [value(embeddings + sign * step, labels, 3.0, refine) for sign in (1, -1)]
        assert slope[i] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)


@pytest.mark.parametrize("refine", REFINES)
def test_loss_is_invariant_to_label_names_order_and_rotation(refine):
    # without clusters of two members, which tie: then the order decides
    embeddings, labels = batch(2, n=18, n_classes=3)
    random = np.random.default_rng(0)
    expected = value(embeddings, labels, 3.0, refine)
    assert expected > 0
    names = np.array([7.5, -1.0, 1e6, 0.25])
    assert value(embeddings, names[labels], 3.0, refine) == pytest.approx(expected)
    order = random.permutation(len(labels))
    assert value(embeddings[order], labels[order], 3.0, refine) == pytest.approx(expected)
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    assert value(embeddings @ rotation + 5, labels, 3.0, refine) == pytest.approx(expected)


def test_labels_of_shape_n_and_n_1_are_equivalent():
    embeddings, labels = batch(3)
    flat, column = (facility_location(embeddings, y, 2.0) for y in (labels, labels[:, None]))
    np.testing.assert_array_equal(flat, column)
    loss = FacilityLocationLoss(2.0)
    assert float(loss(labels, embeddings)) == float(loss(labels[:, None], embeddings)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("refine", REFINES)
def test_compiled_loss_equals_uncompiled(refine):
    embeddings, labels = batch(4, n=24, n_classes=6)

    def both(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            terms = facility_location(x, labels, 5.0, refine)
        return terms, tape.gradient(terms, x)

    x = tf.constant(embeddings, tf.float32)
    compiled, plain = (tf.function(both, jit_compile=jit)(x) for jit in (True, False))
    for a, b in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_half_precision_is_computed_in_float32():
    embeddings, labels = batch(5)
    for dtype, expected in (("bfloat16", "float32"), ("float16", "float32"), ("float64",) * 2):
        rounded = tf.cast(embeddings, dtype)
        terms = facility_location(rounded, labels, 2.0)
        assert terms.dtype.name == expected
        again = facility_location(tf.cast(rounded, expected), labels, 2.0)
        np.testing.assert_array_equal(terms, again)


@pytest.mark.parametrize("refine", REFINES)
@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [
        (np.random.default_rng(0).normal(size=(6, 2)), [0] * 6),  # one class
        (np.random.default_rng(0).normal(size=(6, 2)), [0, 1, 2, 3, 4, 5]),  # all different
        (np.ones((1, 2)), [3]),
        (np.repeat([[0.0, 0.0], [5.0, 5.0]], 3, axis=0), [0, 0, 0, 1, 1, 1]),  # already apart
    ],
)
def test_batches_with_nothing_to_learn_have_zero_loss(embeddings, labels, refine):
    gamma = 1.0 if len(set(labels)) != 2 else 0.0
    loss, slope = gradient(
        lambda x: facility_location(x, np.array(labels), gamma, refine), embeddings
    )
    assert loss == 0 and not slope.any()


@pytest.mark.parametrize("refine", REFINES)
def test_duplicates_have_finite_gradients(refine):
    for embeddings in (np.zeros((6, 2)), np.repeat([[0.0, 1.0], [1.0, 0.0]], 3, axis=0)):
        labels = np.array([0, 1, 2, 0, 1, 2])
        loss, slope = gradient(lambda x, y=labels: facility_location(x, y, 1.0, refine), embeddings)
        assert np.isfinite(loss) and np.isfinite(slope).all()


def test_nan_embeddings_give_nan_loss():
    embeddings, labels = batch(6)
    embeddings[3] = np.nan
    assert np.isnan(value(embeddings, labels))


def test_reductions_and_sample_weights_follow_keras():
    embeddings, labels = batch(7)
    total = value(embeddings.astype(np.float32), labels, 4.0)
    assert float(FacilityLocationLoss(4.0, reduction="sum")(labels, embeddings)) == pytest.approx(
        total
    )
    assert float(FacilityLocationLoss(4.0)(labels, embeddings)) == pytest.approx(total / 12)
    terms = FacilityLocationLoss(4.0, reduction=None)(labels, embeddings)
    assert terms.shape == (12,)
    weights = np.arange(12.0)
    weighted = FacilityLocationLoss(4.0, reduction="sum")(labels, embeddings, weights)
    assert float(weighted) == pytest.approx(float(tf.reduce_sum(terms * weights)), rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        FacilityLocationLoss(3.0, "swap", "ari", "geometric", "sum"),
        BaselineLoss("triplet", margin=0.3, mining="hard"),
        BaselineLoss("softmax", n_classes=4, dim=3, seed=1, scale=8.0),
    ],
    ids=lambda loss: loss.name,
)
def test_losses_are_serializable(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    embeddings, labels = batch(8)
    assert float(again(labels, embeddings)) == float(loss(labels, embeddings))


def test_invalid_arguments_raise_value_error():
    embeddings, labels = batch()
    with pytest.raises(ValueError, match="refine is 'best': expected one of greedy, pam, swap"):
        FacilityLocationLoss(refine="best")
    with pytest.raises(ValueError, match="margin is 'mi'"):
        facility_location(embeddings, labels, margin="mi")
    with pytest.raises(ValueError, match="gamma is nan"):
        FacilityLocationLoss(float("nan"))
    with pytest.raises(ValueError, match=r"expected \(n, d\)"):
        facility_location(embeddings[0], labels)
    with pytest.raises(ValueError, match="12 embeddings and 11 labels"):
        facility_location(embeddings, labels[1:])
    with pytest.raises(ValueError, match="expected one of contrastive"):
        BaselineLoss("quadruplet")
    with pytest.raises(ValueError, match="triplet has no option alpha"):
        BaselineLoss("triplet", alpha=1.0)
    with pytest.raises(ValueError, match="give n_classes and dim"):
        BaselineLoss("proxy_anchor")
    with pytest.raises(ValueError, match="mining is 'easy'"):
        losses.triplet(embeddings, labels, mining="easy")


@pytest.mark.slow
@pytest.mark.parametrize("jit", [True, False])
def test_fit_reduces_loss(jit):
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 16)
    points = (random.normal(size=(4, 8))[labels] + random.normal(size=(64, 8))).astype(np.float32)
    net = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4),
         keras.layers.UnitNormalization()]
    )  # fmt: skip
    net.compile(keras.optimizers.Adam(0.01), FacilityLocationLoss(32.0), jit_compile=jit)
    history = net.fit(points, labels, batch_size=32, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


# ---- baselines


def pairs(labels, i):
    others = [j for j in range(len(labels)) if j != i]
    return [[j for j in others if (labels[j] == labels[i]) == same] for same in (True, False)]


def slow_contrastive(d, labels, i):
    positive, negative = pairs(labels, i)
    pull = [d[i, j] ** 2 / 2 for j in positive]
    return np.mean(pull) + np.mean([max(0, 1 - d[i, j]) ** 2 / 2 for j in negative])


def slow_semihard(d, labels, i):
    positive, negative = pairs(labels, i)
    d = d**2
    terms = []
    for p in positive:
        beyond = [d[i, n] for n in negative if d[i, n] > d[i, p]]
        chosen = min(beyond) if beyond else max(d[i, n] for n in negative)
        terms.append(max(0, 0.2 + d[i, p] - chosen))
    return np.mean(terms)


def slow_hard(d, labels, i):
    positive, negative = pairs(labels, i)
    return max(0, 0.2 + max(d[i, p] for p in positive) - min(d[i, n] for n in negative))


def slow_lifted(d, labels, i):
    positive, _ = pairs(labels, i)
    terms = []
    for j in positive:
        push = sum(np.exp(1 - d[a, n]) for a in (i, j) for n in pairs(labels, a)[1])
        terms.append(max(0, np.log(push) + d[i, j]) ** 2 / 2)
    return np.mean(terms)


def slow_n_pair(x, labels, i):
    positive, negative = pairs(labels, i)
    return np.mean(
        [np.log1p(sum(np.exp(10 * x[i] @ (x[n] - x[p])) for n in negative)) for p in positive]
    )


def slow_multi_similarity(x, labels, i):
    positive, negative = pairs(labels, i)
    s = x @ x[i]
    kept_p = [p for p in positive if s[p] < max(s[n] for n in negative) + 0.1]
    kept_n = [n for n in negative if s[n] > min(s[p] for p in positive) - 0.1]
    pull = np.log1p(sum(np.exp(-2 * (s[p] - 0.5)) for p in kept_p)) / 2
    return pull + np.log1p(sum(np.exp(50 * (s[n] - 0.5)) for n in kept_n)) / 50


@pytest.fixture
def units():
    embeddings, labels = batch(9)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), labels


@pytest.mark.parametrize(
    ("function", "slow"),
    [
        (losses.contrastive, slow_contrastive),
        (losses.triplet, slow_semihard),
        (lambda x, y: losses.triplet(x, y, mining="hard"), slow_hard),
        (losses.lifted, slow_lifted),
        (losses.n_pair, slow_n_pair),
        (losses.multi_similarity, slow_multi_similarity),
    ],
    ids=["contrastive", "semihard", "hard", "lifted", "n_pair", "multi_similarity"],
)
def test_baselines_match_loops(units, function, slow):
    x, labels = units
    inputs = x if slow in (slow_n_pair, slow_multi_similarity) else loops.distances_of(x)
    expected = [slow(inputs, labels, i) for i in range(len(labels))]
    np.testing.assert_allclose(function(x, labels), expected, rtol=1e-6)


def test_semihard_triplets_have_squared_distances():
    # on a line: anchor 0.0 with positive 0.5, negatives 0.4 and 0.6. The semi-hard one is 0.6:
    # 0.2 + 0.25 - 0.36 = 0.09; with plain distances it would be 0.2 + 0.5 - 0.6 = 0.1.
    x, labels = np.array([[0.0], [0.5], [0.4], [0.6]]), np.array([0, 0, 1, 2])
    assert float(losses.triplet(x, labels)[0]) == pytest.approx(0.09)
    # hard triplets have plain distances: 0.2 + 0.5 - 0.4 = 0.3
    assert float(losses.triplet(x, labels, mining="hard")[0]) == pytest.approx(0.3)


def test_proxy_anchor_and_softmax_match_loops(units):
    x, labels = units
    weights = np.random.default_rng(1).normal(size=(6, 3))  # two classes are not in the batch
    s = x @ (weights / np.linalg.norm(weights, axis=1, keepdims=True)).T
    pull = [np.log1p(np.exp(-32 * (s[labels == c, c] - 0.1)).sum()) for c in range(4)]
    push = [np.log1p(np.exp(32 * (s[labels != c, c] + 0.1)).sum()) for c in range(6)]
    terms = losses.proxy_anchor(x, labels, weights)
    np.testing.assert_allclose(terms, np.full(12, np.sum(pull) / 4 + np.mean(push)), rtol=1e-6)
    p = np.exp(16 * s) / np.exp(16 * s).sum(1, keepdims=True)
    terms = losses.softmax(x, labels, weights)
    np.testing.assert_allclose(terms, -np.log(p[np.arange(12), labels]), rtol=1e-6)


@pytest.mark.parametrize("kind", ["contrastive", "triplet", "lifted", "n_pair", "multi_similarity"])
def test_baselines_are_finite_with_nothing_to_compare(kind):
    for labels in (np.zeros(5, int), np.arange(5)):
        for embeddings in (np.zeros((5, 2)), np.random.default_rng(0).normal(size=(5, 2))):
            loss, slope = gradient(lambda x, y=labels: losses.FUNCTIONS[kind](x, y), embeddings)
            assert np.isfinite(loss) and np.isfinite(slope).all()
            if kind in ("triplet", "lifted"):
                assert loss == 0


def test_proxies_have_gradients(units):
    x, labels = units
    loss = BaselineLoss("proxy_anchor", n_classes=4, dim=3)
    with tf.GradientTape() as tape:
        value = loss(labels, x)
    (slope,) = tape.gradient(value, [v.value for v in loss.trainable_variables])
    assert slope.shape == (4, 3) and np.abs(slope).max() > 0
