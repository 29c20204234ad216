"""DenseNet (Huang et al. 2017) for small images, with an embedding layer instead of a classifier.

Three dense blocks: each layer takes all earlier outputs of its block and adds k channels. Between
blocks a 1x1 convolution and pooling. "BC" puts a 1x1 convolution to 4 k channels before each 3x3
convolution and halves the channels between blocks.
"""

import numpy as np

from clusterloss_tf import config
from common.tf import keras

layers = keras.layers

EPSILON = 1e-5


@keras.saving.register_keras_serializable("clusterloss_tf")
class Standardize(layers.Layer):
    """Subtracts the mean and divides by the standard deviation of each channel.

    Both are those of the training images.
    """

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.mean, self.deviation = (
            self.add_weight((shape[-1],), initializer, trainable=False, name=name)
            for name, initializer in (("mean", "zeros"), ("deviation", "ones"))
        )

    def adapt(self, images: np.ndarray) -> None:
        """Computes both from images (n, h, w, c), uint8 or floats in [0, 1].

        A constant channel keeps deviation 1.
        """
        largest = 255.0 if images.dtype == np.uint8 else 1.0
        n, total, squares = 0, 0.0, 0.0
        for start in range(0, len(images), 4096):  # in parts: a float copy may not fit in memory
            part = images[start : start + 4096].reshape(-1, images.shape[3])
            part = part.astype(np.float64) / largest
            n, total, squares = n + len(part), total + part.sum(0), squares + (part**2).sum(0)
        deviation = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
        self.mean.assign(total / n)
        self.deviation.assign(np.where(deviation > 1e-6, deviation, 1.0))

    def call(self, images):
        return (images - self.mean) / self.deviation


def build(cfg: config.Model, shape: tuple[int, int, int], seed: int) -> keras.Model:
    """Images (b, h, w, c) in [0, 1] -> embeddings (b, dim)."""
    random = np.random.default_rng(seed)

    def draw() -> int:
        return int(random.integers(2**31))

    def conv(x, n_channels: int, side: int, name: str):
        x = layers.Conv2D(
            n_channels,
            side,
            padding="same",
            use_bias=False,
            kernel_initializer=keras.initializers.HeNormal(seed=draw()),
            name=name,
        )(x)
        if cfg.dropout:
            x = layers.Dropout(cfg.dropout, seed=draw(), name=f"{name}_dropout")(x)
        return x

    def activate(x, name: str):
        x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    n_layers = (cfg.depth - 4) // (6 if cfg.bottleneck else 3)
    x = images = keras.Input(shape)
    x = Standardize(name="standardize")(x)
    x = conv(x, 2 * cfg.growth, 3, "stem")  # (b, h, w, 2k)
    for block in range(3):
        for layer in range(n_layers):
            name, new = f"block{block}_layer{layer}", x
            if cfg.bottleneck:
                new = activate(new, f"{name}_narrow")
                new = conv(new, 4 * cfg.growth, 1, f"{name}_narrow")
            new = conv(activate(new, name), cfg.growth, 3, name)
            x = layers.Concatenate(name=f"{name}_join")([x, new])
        if block < 2:
            name, n_channels = f"transition{block}", x.shape[-1]
            n_kept = n_channels // 2 if cfg.bottleneck else n_channels
            x = conv(activate(x, name), n_kept, 1, name)
            x = layers.AveragePooling2D(2, padding="same", name=f"{name}_pool")(x)  # halves h and w
    x = layers.GlobalAveragePooling2D(name="pool")(activate(x, "last"))
    glorot = keras.initializers.GlorotUniform(seed=draw())
    x = layers.Dense(cfg.dim, kernel_initializer=glorot, name="embedding")(x)  # (b, dim)
    if cfg.normalize:
        x = layers.UnitNormalization(name="unit")(x)
    return keras.Model(images, x)


def by_name(variables: list[keras.Variable]) -> dict[str, keras.Variable]:
    """Variables by path with dots instead of slashes, which would make groups in an HDF5 file.

    Seeds of dropout layers are numbered: Keras counts their paths over all models of a process.
    """
    paths = [variable.path.replace("/", ".") for variable in variables]
    names = [f"noise_{i}" if "seed_generator" in path else path for i, path in enumerate(paths)]
    return dict(zip(names, variables, strict=True))
