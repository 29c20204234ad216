"""Augmentation of images together with their labels, and the synthetic digits."""

import numpy as np
import torch

from unsup_seg_torch.segmenter import config, data
from unsup_seg_torch.segmenter.data import IGNORE


def make_config(**training):
    return config.Config(
        dataset=config.Dataset(crop=(16, 24)), training=config.Training(**training)
    )


def square(h=20, w=30):
    """A square of label 20 on label 0."""
    image = np.full((h, w, 3), 60, np.uint8)
    labels = np.zeros((h, w), np.uint8)
    image[5:15, 8:20], labels[5:15, 8:20] = (200, 30, 90), 20
    return image, labels


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_labels_are_not_interpolated_and_padding_is_ignored():
    cfg = make_config(scale=(0.4, 1.7), color=0.0)
    for seed in range(20):
        views, labels = data.augment([square(), square(12, 9)], cfg, generator(seed))
        assert set(labels.unique().tolist()) <= {0, 20, IGNORE}
        assert views.shape == (2, 3, 16, 24) and labels.shape == (2, 16, 24)
        assert not views.movedim(1, 3)[labels == IGNORE].any()
        inside = views[:, 0][labels == 20]
        assert inside.numel() == 0 or float(inside.mean()) > 0.5  # 200 / 255, except at edges


def test_images_and_labels_move_together():
    """An image of its own label values still has them after augmentation, except at edges."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (5, 6)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    image = np.repeat(labels[..., None] * 60, 3, 2)
    cfg = make_config(scale=(0.7, 1.4), single_class=1.0, color=0.0)
    for seed in range(10):
        views, moved = data.augment([(image, labels)], cfg, generator(seed))
        is_labeled = (moved[0] != IGNORE).numpy()
        values = np.rint(views[0, 0].numpy() * 255 / 60)
        assert (values == moved[0].numpy())[is_labeled].mean() > 0.8


def test_crop_of_a_single_class_is_drawn_again():
    image, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    labels[:, 32:] = 1
    fraction = {}  # of crops with a single class
    for limit in (0.75, 1.0):
        cfg = make_config(scale=(1.0, 1.0), single_class=limit, color=0.0)
        crops = [data.augment([(image, labels)], cfg, generator(seed))[1] for seed in range(60)]
        fraction[limit] = np.mean([float((c == 0).float().mean()) in (0.0, 1.0) for c in crops])
    assert fraction[0.75] < 0.1 < fraction[1.0]


def test_epoch_continues_from_any_batch():
    cfg = make_config(batch_size=2)
    pairs = [square(20 + i, 30) for i in range(5)]
    whole = list(data.batches(pairs, cfg, 1))
    rest = list(data.batches(pairs, cfg, 1, first=1))
    assert [len(images) for images, _ in whole] == [2, 2, 1]
    for expected, batch in zip(whole[1:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, batch, strict=True))
    assert not torch.equal(whole[0][0], next(data.batches(pairs, cfg, 2))[0])


def test_short_side_keeps_proportions():
    assert data.fit_short_side((40, 60), 20) == (20, 30)
    assert data.fit_short_side((60, 40), 20) == (30, 20)
    assert data.fit_short_side((40, 60), None) == (40, 60)


def test_synthetic_digits_are_reproducible_and_labeled_where_bright():
    train, val = (
        data.LabeledImages(config.Dataset(n_images=4), split) for split in ("train", "val")
    )
    assert (len(train), train.n_classes, train.classes[:2]) == (4, 11, ["ground", "0"])
    image, labels = train[0]
    assert image.shape == (64, 64, 3) and labels.shape == (64, 64)
    again = data.LabeledImages(config.Dataset(n_images=4), "train")[0]
    assert np.array_equal(image, again[0]) and np.array_equal(labels, again[1])
    assert not np.array_equal(image, val[0][0])
    is_digit = (labels != IGNORE) & (labels > 0)
    assert image[is_digit].mean() > image[labels == 0].mean() + 40
