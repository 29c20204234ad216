"""DenseNet: size, initialization and embeddings."""

import numpy as np
import pytest

from clusterloss_tf import config, model


def n_trainable(net):
    return sum(int(np.prod(variable.shape)) for variable in net.trainable_variables)


@pytest.mark.parametrize(("bottleneck", "expected"), [(False, 1_100_000), (True, 188_000)])
def test_densenet_40_has_published_size(bottleneck, expected):
    # an embedding of 100 dimensions has the weights of a classifier of 100 classes
    cfg = config.Model(depth=40, bottleneck=bottleneck, dim=100, normalize=False)
    assert n_trainable(model.build(cfg, (32, 32, 3), 0)) == pytest.approx(expected, rel=0.005)


def by_hand(growth, n_layers, bottleneck, dim):
    """Number of weights, counted layer by layer, and the width of the last block."""
    width = 2 * growth
    total = 3 * 9 * width
    for block in range(3):
        for _ in range(n_layers):
            total += 2 * width  # normalization
            if bottleneck:
                total += width * 4 * growth + 2 * 4 * growth + 9 * 4 * growth * growth
            else:
                total += 9 * width * growth
            width += growth
        if block < 2:
            kept = width // 2 if bottleneck else width
            total += 2 * width + width * kept
            width = kept
    return total + 2 * width + width * dim + dim, width


@pytest.mark.parametrize("bottleneck", [False, True])
def test_number_of_weights_matches_count_by_hand(bottleneck):
    cfg = config.Model(depth=40, bottleneck=bottleneck)
    total, width = by_hand(12, 6 if bottleneck else 12, bottleneck, 64)
    assert width == (132 if bottleneck else 456)
    net = model.build(cfg, (32, 32, 3), 0)
    assert n_trainable(net) == total
    assert net.output_shape == (None, 64)


SMALL = config.Model(depth=7, growth=4, dim=5)


def test_embeddings_are_unit_vectors_if_normalized():
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    embeddings = np.asarray(model.build(SMALL, (8, 8, 1), 0)(images))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    free = config.Model(depth=7, growth=4, dim=5, normalize=False)
    embeddings = np.asarray(model.build(free, (8, 8, 1), 0)(images))
    assert np.abs(np.linalg.norm(embeddings, axis=1) - 1).max() > 0.01


def test_initial_weights_are_he_normal_and_depend_on_seed():
    nets = [model.build(SMALL, (8, 8, 1), seed) for seed in (0, 0, 1)]
    kernels = [np.asarray(net.get_layer("block2_layer0").kernel) for net in nets]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
    # variance 2 / fan-in; 9 * 16 * 4 numbers: the sample deviation is within 15 % (5 sigma)
    big = model.build(config.Model(depth=7, growth=8), (8, 8, 3), 0)
    kernel = np.asarray(big.get_layer("block2_layer0").kernel)
    fan_in = np.prod(kernel.shape[:3])
    assert kernel.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 3), (7, 5, 3)])
def test_any_image_size_has_an_embedding(shape):
    embeddings = np.asarray(model.build(SMALL, shape, 0)(np.ones((2, *shape), np.float32)))
    assert embeddings.shape == (2, 5) and np.isfinite(embeddings).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_standardize_uses_statistics_of_images(dtype):
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 2), np.uint8)
    images[..., 1] = 7  # a constant channel stays finite
    floats = images.astype(np.float32) / 255
    layer = model.Standardize()
    layer.build((None, 4, 4, 2))
    layer.adapt(images if dtype == np.uint8 else floats)
    output = np.asarray(layer(floats))
    np.testing.assert_allclose(output[..., 0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(output[..., 0].std(), 1, rtol=1e-4)
    np.testing.assert_allclose(output[..., 1], 0, atol=1e-6)


def test_variable_names_are_unique_and_reproducible():
    cfg = config.Model(depth=7, growth=4, dropout=0.2)
    first, second = (list(model.by_name(model.build(cfg, (8, 8, 1), 0).variables)) for _ in "ab")
    assert first == second and len(set(first)) == len(first)
