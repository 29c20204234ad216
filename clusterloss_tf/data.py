"""Training and test images, batches of P classes x M images, and augmentation."""

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np

from clusterloss_tf import config
from common import UserError, datasets
from common.estimators import check_labels
from common.tf import keras, tf

log = logging.getLogger("clusterloss_tf.data")

SPLIT_SEED = 0  # the split does not depend on training.seed

# The official superclasses of CIFAR-100 (Krizhevsky 2009), whose labels are the sorted class names.
SUPERCLASSES = [
    "beaver dolphin otter seal whale",
    "aquarium_fish flatfish ray shark trout",
    "orchid poppy rose sunflower tulip",
    "bottle bowl can cup plate",
    "apple mushroom orange pear sweet_pepper",
    "clock keyboard lamp telephone television",
    "bed chair couch table wardrobe",
    "bee beetle butterfly caterpillar cockroach",
    "bear leopard lion tiger wolf",
    "bridge castle house road skyscraper",
    "cloud forest mountain plain sea",
    "camel cattle chimpanzee elephant kangaroo",
    "fox porcupine possum raccoon skunk",
    "crab lobster snail spider worm",
    "baby boy girl man woman",
    "crocodile dinosaur lizard snake turtle",
    "hamster mouse rabbit shrew squirrel",
    "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "bicycle bus motorcycle pickup_truck train",
    "lawn_mower rocket streetcar tank tractor",
]


def load(cfg: config.Dataset) -> tuple[datasets.Images, datasets.Images]:
    """The training and the test images; raises UserError if there are too few.

    Protocol "seen": tests on `test_split`, or on `held_out` of each class; "disjoint": on all
    images of the last classes.
    """
    dataset = _load_labeled(cfg, cfg.split)
    classes = np.unique(dataset.labels)
    if cfg.protocol == "disjoint":
        n_test = max(2, round(cfg.held_out * len(classes)))
        if len(classes) - n_test < 2:
            raise UserError(
                f"dataset.protocol disjoint needs two classes to train on and two to test on, "
                f"{cfg.name} has {len(classes)}"
            )
        is_test = np.isin(dataset.labels, classes[-n_test:])
        return _subset(dataset, ~is_test), _subset(dataset, is_test)
    if len(classes) < 2:
        raise UserError(f"{cfg.name} has {len(classes)} class: metric learning needs two")
    if cfg.test_split:
        return dataset, _load_labeled(cfg, cfg.test_split)
    random = np.random.default_rng(SPLIT_SEED)
    is_test = np.zeros(len(dataset.labels), bool)
    for label in classes:
        members = random.permutation(np.flatnonzero(dataset.labels == label))
        is_test[members[: min(max(round(cfg.held_out * len(members)), 1), len(members) - 1)]] = True
    if np.count_nonzero(is_test) < 2:
        raise UserError(
            f"{cfg.name} has {len(is_test)} images: too few to hold out two for testing"
        )
    return _subset(dataset, ~is_test), _subset(dataset, is_test)


def _load_labeled(cfg: config.Dataset, split: str) -> datasets.Images:
    dataset = datasets.load(cfg.name, split, cfg.root, cfg.path, cfg.size, cfg.max_bad)
    if dataset.labels is None:
        raise UserError(
            f"{cfg.path or cfg.name} has no labels: expected two or more sub-folders, one per class"
        )
    return dataset


def _subset(dataset: datasets.Images, is_chosen: np.ndarray) -> datasets.Images:
    return dataclasses.replace(
        dataset,
        images=dataset.images[is_chosen],
        labels=dataset.labels[is_chosen],
        paths=[dataset.paths[i] for i in np.flatnonzero(is_chosen)],
    )


def superclasses(name: str, labels: np.ndarray) -> np.ndarray:
    """The superclass (n_classes,) of each distinct label; raises UserError except for cifar100."""
    if name != "cifar100":
        raise UserError(f"training.sampler superclasses is for cifar100, {name} has none")
    of_class = {each: i for i, names in enumerate(SUPERCLASSES) for each in names.split()}
    return np.array([of_class[each] for each in sorted(of_class)])[np.unique(labels)]


# ---- batches


def batch_shape(n_classes: int, batch_size: int, images_per_class: int) -> tuple[int, int]:
    """P classes x M images, at most batch_size; few classes get more images each."""
    p = min(max(batch_size // images_per_class, 1), n_classes)
    return p, max(batch_size // p, 1)


def batches(
    labels: np.ndarray,
    batch_size: int,
    images_per_class: int,
    seed: int,
    epoch: int,
    groups: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Indices (P * M,) of each batch of an epoch: P classes, M images of each.

    labels (n,); groups (n_classes,), superclass of each distinct label: fills a batch with classes
    of few superclasses. Classes are drawn anew for each batch, the images of a class without
    replacement until all were drawn. A class with fewer than M images repeats them. Depends on seed
    and epoch alone. Warns if the losses would be zero: one class, or one image of each.
    """
    classes, labels = np.unique(labels, return_inverse=True)
    p, m = batch_shape(len(classes), batch_size, images_per_class)
    if p < 2 or m < 2:
        log.warning("batches of %d classes x %d images: there is nothing to compare", p, m)
    random = np.random.default_rng([seed, epoch])
    members = [np.flatnonzero(labels == label) for label in range(len(classes))]
    left = [np.empty(0, np.int64) for _ in classes]
    for _ in range(max(1, len(labels) // (p * m))):
        order = random.permutation(len(classes))
        if groups is not None:  # one superclass after the other
            order = order[np.argsort(random.permutation(groups.max() + 1)[groups[order]])]
        batch = []
        for label in order[:p]:
            if len(left[label]) < m:
                fresh = random.permutation(members[label])
                left[label] = np.append(left[label], fresh[~np.isin(fresh, left[label])])
                left[label] = np.resize(left[label], max(len(left[label]), m))  # repeats too few
            batch.append(left[label][:m])
            left[label] = left[label][m:]
        yield np.concatenate(batch)


class ClassBatches(keras.utils.PyDataset):
    """`batches` of images (n, h, w, c) and labels (n,) or (n, 1) for `model.fit`, each epoch anew.

    Raises ValueError for invalid labels.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int = 128,
        images_per_class: int = 4,
        seed: int = 0,
        **keywords: int | bool,
    ):
        super().__init__(**keywords)
        self.images = images
        self.labels = check_labels(np.asarray(labels).ravel(), len(images))
        self.options, self.epoch = (batch_size, images_per_class, seed), 0
        self.order = list(batches(self.labels, *self.options, epoch=0))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self.images[self.order[i]], self.labels[self.order[i]]

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self.order = list(batches(self.labels, *self.options, epoch=self.epoch))


def to_tf_dataset(source: ClassBatches) -> tf.data.Dataset:
    """The same batches as an infinite tf.data.Dataset; an epoch has `len(source)` of them."""

    def generate() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        epoch = 0
        while True:
            for indices in batches(source.labels, *source.options, epoch=epoch):
                yield source.images[indices], source.labels[indices]
            epoch += 1

    signature = tuple(tf.TensorSpec(part.shape, part.dtype) for part in source[0])
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


# ---- images


def to_float(images: tf.Tensor) -> tf.Tensor:
    """uint8 0..255 -> float32 0..1; floats (of the estimator) are returned unchanged."""
    return tf.cast(images, tf.float32) / 255 if images.dtype == tf.uint8 else images


def augment(images: tf.Tensor, kind: str, seed: tf.Tensor) -> tf.Tensor:
    """Shifts each image (b, h, w, c) by up to an eighth of its sides; "flip" also mirrors half.

    seed (2,) int32 decides the shifts. paper: black pixels move in; ours: the image mirrored at its
    border.
    """
    b, h, w = tf.shape(images)[0], images.shape[1], images.shape[2]
    for axis, side in ((1, h), (2, w)):
        pad = max(1, side // 8) if side > 1 else 0
        shift = tf.random.stateless_uniform((b, 1), seed + axis, 0, 2 * pad + 1, tf.int32)
        widths = [[0, 0], [pad, pad] if axis == 1 else [0, 0], [pad, pad] if axis == 2 else [0, 0]]
        images = tf.pad(images, [*widths, [0, 0]], "SYMMETRIC")
        columns = shift + tf.range(side)[None]  # (b, side)
        images = tf.gather(images, columns, axis=axis, batch_dims=1)
    if kind == "flip":
        is_mirrored = tf.random.stateless_uniform((b, 1, 1, 1), seed) < 0.5
        images = tf.where(is_mirrored, images[:, :, ::-1], images)
    return images
