import numpy as np
import pytest

from common import UserError
from common.tf import checkpoint, tf
from dfc_tf import config, model


def build(**changes):
    return model.build(config.Model(**changes), 3, seed=0)


def image(h=9, w=7, c=3, seed=0):
    return np.random.default_rng(seed).random((1, h, w, c)).astype(np.float32)


def slow_responses(net, image):
    """(h, w, c) -> (h, w, q), pixel by pixel."""
    x = image.astype(np.float64)
    for i, kernel in enumerate(net.kernels):
        k = kernel.numpy()
        side = k.shape[0] // 2
        padded = np.pad(x, [(side, side), (side, side), (0, 0)])
        y = np.zeros((*x.shape[:2], k.shape[3]))
        for v, u in np.ndindex(x.shape[:2]):
            window = padded[v : v + 2 * side + 1, u : u + 2 * side + 1]
            y[v, u] = (window[..., None] * k).sum((0, 1, 2))
        if i < len(net.biases):
            y = np.maximum(y + net.biases[i].numpy(), 0)
        x = (y - y.mean((0, 1))) / np.sqrt(y.var((0, 1)) + 1e-5)
        x = x * net.scales[i].numpy() + net.offsets[i].numpy()
    return x


def test_responses_match_a_slow_loop():
    net = build(n_blocks=2, width=6, n_clusters=5)
    random = np.random.default_rng(1)
    for variable in [*net.scales, *net.offsets]:
        variable.assign(random.normal(size=variable.shape))
    x = image()
    np.testing.assert_allclose(net(x)[0], slow_responses(net, x[0]), atol=1e-4)  # single precision


@pytest.mark.parametrize("side", [1, 3, 5])
def test_custom_gradients_match_tensorflow(side):
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(2, 7, 6, 4)))
    kernel = tf.constant(random.normal(size=(side, side, 4, 3)))
    custom, expected = [], []
    for function, results in ((model.convolution, custom), (model.conv2d, expected)):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            y = function(x, kernel)
        upstream = tf.constant(np.random.default_rng(1).normal(size=y.shape))
        results += [y, *tape.gradient(y, [x, kernel], output_gradients=upstream)]
    for a, b in zip(custom, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("blocks", "parameters"),
    # 3x3x3x100 + 9x100x100 per further block + 100x100, biases, two per normalization
    [(2, 2_700 + 90_000 + 10_000 + 200 + 600), (3, 2_700 + 180_000 + 10_000 + 300 + 800)],
)
def test_number_of_parameters(blocks, parameters):
    net = build(n_blocks=blocks)
    assert sum(int(tf.size(variable)) for variable in net.trainable_variables) == parameters


def test_torch_init_bounds():
    net = build()
    # U(-b, b) with b = 1 / sqrt(fan in); standard deviation b / sqrt(3)
    for kernel, fan_in in zip(net.kernels, (27, 900, 100), strict=True):
        assert abs(kernel.numpy()).max() <= fan_in**-0.5
        assert kernel.numpy().std() == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)
    assert 0 < abs(net.biases[1].numpy()).max() <= 900**-0.5


def test_keras_init_bounds():
    net = build(init="keras")
    bound = (6 / (900 + 900)) ** 0.5  # Glorot
    assert 0.95 * bound < abs(net.kernels[1].numpy()).max() <= bound
    assert not net.biases[1].numpy().any()


def test_untrained_network_uses_most_labels():
    net = build()
    assert len(np.unique(net.labels(image(60, 60)))) > 90


def test_labels_do_not_depend_on_previous_images():
    net, x = build(width=8), image()
    first = net.labels(x).numpy()
    net.labels(image(5, 5, seed=3))
    assert np.array_equal(net.labels(x), first)


def test_frozen_statistics_are_of_the_last_training_image():
    net, x = build(width=8), image(20, 20)
    net(x, keep_statistics=True)
    assert np.mean(net.frozen_labels(x).numpy() == net.labels(x).numpy()) > 0.97
    brighter = np.clip(x * 0.5 + 0.4, 0, 1)
    assert np.mean(net.frozen_labels(brighter).numpy() == net.labels(brighter).numpy()) < 0.9


def test_weights_depend_on_the_seed():
    nets = [model.build(config.Model(), 3, seed) for seed in (1, 1, 2)]
    values = [net.kernels[1].numpy() for net in nets]
    assert np.array_equal(values[0], values[1]) and not np.array_equal(values[0], values[2])


def test_weights_round_trip(tmp_path):
    net, other = build(), model.build(config.Model(), 3, seed=5)
    checkpoint.save(tmp_path / "w.h5", model.by_name(net.variables))
    checkpoint.load(tmp_path / "w.h5", model.by_name(other.variables))
    for a, b in zip(net.variables, other.variables, strict=True):
        assert np.array_equal(a, b)
    assert model.n_channels(tmp_path / "w.h5") == 3


def test_weights_of_another_network_are_refused(tmp_path):
    checkpoint.save(tmp_path / "w.h5", model.by_name(build(width=8).variables))
    with pytest.raises(UserError, match=r"bias_0 is \(8,\), the config expects \(9,\)"):
        checkpoint.load(tmp_path / "w.h5", model.by_name(build(width=9).variables))


def test_nan_is_not_saved(tmp_path):
    net = build(width=8)
    net.kernels[0].assign(net.kernels[0] * np.nan)
    with pytest.raises(UserError, match="kernel_0 became NaN"):
        checkpoint.save(tmp_path / "w.h5", model.by_name(net.variables))
    assert not list(tmp_path.iterdir())


def test_bfloat16_is_close_to_float32():
    net, x = build(), image(30, 30)
    exact = net(x).numpy()
    net.compute_dtype = tf.bfloat16
    assert abs(net(x).numpy() - exact).max() < 0.3  # responses have unit variance
