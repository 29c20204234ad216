"""A small CNN that scores q clusters at every pixel (Kim et al. 2020, figure 2).

n blocks of 3x3 convolution, ReLU and batch normalization, then a 1x1 convolution and a
normalization that makes every channel equally likely to win. The normalization uses the statistics
of the current image, in training and in prediction.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import UserError, hdf5
from common.tf import tf
from dfc_tf import config

EPSILON = 1e-5  # of the normalization, as in PyTorch


def build(model_cfg: config.Model, n_channels: int, seed: int) -> "Net":
    """An untrained network for images of n_channels."""
    return Net(model_cfg, n_channels, seed)


class Net(tf.Module):
    def __init__(self, model_cfg: config.Model, n_channels: int, seed: int):
        super().__init__()
        self.init, self.n_channels = model_cfg.init, n_channels
        self.compute_dtype = tf.float32  # of the convolutions
        has_gpu = tf.config.list_physical_devices("GPU")  # TensorFlow's gradients are fast there
        self.convolve = conv2d if has_gpu else convolution
        n_blocks = model_cfg.n_blocks
        widths = [n_channels, *[model_cfg.width] * n_blocks, model_cfg.n_clusters]
        sides = [3] * n_blocks + [1]
        self.kernels = [
            tf.Variable(tf.zeros((side, side, a, b)), name=f"kernel_{i}")
            for i, (side, a, b) in enumerate(zip(sides, widths, widths[1:], strict=False))
        ]
        # the last convolution has none: the normalization after it would remove it
        self.biases = [
            tf.Variable(tf.zeros(w), name=f"bias_{i}") for i, w in enumerate(widths[1:-1])
        ]
        self.scales = [tf.Variable(tf.ones(w), name=f"scale_{i}") for i, w in enumerate(widths[1:])]
        self.offsets = [
            tf.Variable(tf.zeros(w), name=f"offset_{i}") for i, w in enumerate(widths[1:])
        ]
        # of the last training batch, for frozen_statistics
        self.means = [
            tf.Variable(tf.zeros(w), trainable=False, name=f"mean_{i}")
            for i, w in enumerate(widths[1:])
        ]
        self.variances = [
            tf.Variable(tf.ones(w), trainable=False, name=f"variance_{i}")
            for i, w in enumerate(widths[1:])
        ]
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Assigns new random weights to the same variables: traced graphs stay valid."""
        rng = np.random.default_rng(seed)
        for kernel in self.kernels:
            height, width, n_in, n_out = kernel.shape
            fan_in, fan_out = height * width * n_in, height * width * n_out
            bound = fan_in**-0.5 if self.init == "torch" else (6 / (fan_in + fan_out)) ** 0.5
            kernel.assign(_uniform(rng, bound, kernel.shape))
        for kernel, bias in zip(self.kernels, self.biases, strict=False):
            bound = np.prod(kernel.shape[:3]) ** -0.5 if self.init == "torch" else 0.0
            bias.assign(_uniform(rng, bound, bias.shape))
        for variable in [*self.scales, *self.variances]:
            variable.assign(tf.ones_like(variable))
        for variable in [*self.offsets, *self.means]:
            variable.assign(tf.zeros_like(variable))

    def __call__(self, images: tf.Tensor, keep_statistics: bool = False) -> tf.Tensor:
        """Images (b, h, w, c) -> responses (b, h, w, q) with unit variance per channel."""
        x = images
        for i, kernel in enumerate(self.kernels):
            x = self.convolve(tf.cast(x, self.compute_dtype), tf.cast(kernel, self.compute_dtype))
            x = tf.cast(x, tf.float32)
            if i < len(self.biases):
                x = tf.nn.relu(tf.nn.bias_add(x, self.biases[i]))  # (b, h, w, p)
            x = self._normalize(x, i, keep_statistics)
        return x

    def _normalize(self, x: tf.Tensor, i: int, keep_statistics: bool) -> tf.Tensor:
        x, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            x, self.scales[i], self.offsets[i], epsilon=EPSILON
        )
        if keep_statistics:
            self.means[i].assign(mean)
            self.variances[i].assign(variance)
        return x

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, None))])
    def labels(self, images: tf.Tensor) -> tf.Tensor:
        """The winning channel of every pixel: (1, h, w, c) -> (h, w) int32."""
        return tf.argmax(self(images)[0], -1, output_type=tf.int32)

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, None))])
    def frozen_labels(self, images: tf.Tensor) -> tf.Tensor:
        """As `labels`, with the statistics of the last training batch."""
        x = images
        for i, kernel in enumerate(self.kernels):
            x = conv2d(x, kernel)
            if i < len(self.biases):
                x = tf.nn.relu(tf.nn.bias_add(x, self.biases[i]))
            scale = self.scales[i] * tf.math.rsqrt(self.variances[i] + EPSILON)
            x = x * scale + (self.offsets[i] - self.means[i] * scale)
        return tf.argmax(x[0], -1, output_type=tf.int32)


def conv2d(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolution of stride 1 and same padding: x (b, h, w, c), kernel (side, side, c, d)."""
    return tf.nn.conv2d(x, kernel, 1, "SAME")


@tf.custom_gradient
def convolution(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """`conv2d` for kernels of odd side with custom gradients, on a CPU twice as fast.

    For x the gradient is a convolution with the flipped (180 degrees) kernel, for the kernel one
    matrix product per kernel position.
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x_gradient = conv2d(upstream, tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2)))
        side, _, c, d = kernel.shape
        margin = side // 2
        # images padded with zeros and stacked vertically; since rows are multiples of a cache line,
        # TensorFlow reads shifted rows without a copy
        extra = -tf.shape(x)[2] % 16
        x_rows = tf.pad(x, ((0, 0), (margin, margin), (margin, margin + extra), (0, 0)))
        rows = tf.pad(upstream, ((0, 0), (0, 2 * margin), (0, extra), (0, 0)))
        width = tf.shape(rows)[2]
        rows = tf.reshape(rows, (-1, width, d))
        n = tf.shape(rows)[0] - 2 * margin
        rows = tf.reshape(rows[:n], (-1, d))
        kernel_gradient = [[] for _ in range(side)]
        for j in range(side):
            shifted = tf.reshape(x_rows[:, :, j : j + width], (-1, width, c))
            for i in range(side):
                shifted_rows = tf.reshape(shifted[i : i + n], (-1, c))
                kernel_gradient[i].append(tf.matmul(shifted_rows, rows, transpose_a=True))
        return x_gradient, tf.stack([tf.stack(row) for row in kernel_gradient])

    return conv2d(x, kernel), gradient


def _uniform(rng: np.random.Generator, bound: float, shape: tf.TensorShape) -> np.ndarray:
    return rng.uniform(-bound, bound, tuple(shape)).astype(np.float32)


def compute_dtype(precision: str) -> tf.DType:
    """Floating-point type of the convolutions; "auto" is float32."""
    return tf.bfloat16 if precision == "bfloat16" else tf.float32


def by_name(variables: list[tf.Variable]) -> dict[str, tf.Variable]:
    return {variable.name.partition(":")[0]: variable for variable in variables}


def n_channels(path: Path) -> int:
    """Number of image channels that saved weights are for; raises UserError as `load`."""
    kernel = hdf5.read(path).get("kernel_0")
    if kernel is None or kernel.ndim != 4:
        raise UserError(f"{path} is not a readable checkpoint: it has no kernel_0")
    return kernel.shape[2]
