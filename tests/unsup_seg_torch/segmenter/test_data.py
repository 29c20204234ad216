"""Augmentation of images together with their labels, and the synthetic digits."""

import numpy as np
import pytest
import torch
from PIL import Image

from common import UserError
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


# ---- classes


def folder_of(path, *label_maps):
    """Pairs of an image and a label map."""
    for i, labels in enumerate(label_maps):
        Image.new("RGB", (len(labels[0]), len(labels))).save(path / f"{i}.jpg")
        Image.fromarray(np.array(labels, np.uint8)).save(path / f"{i}.png")
    return path


@pytest.mark.parametrize(
    ("label_maps", "reason"),
    [
        ([[[255, 255]], [[255, 255]]], "have nothing but 255, which means unlabeled"),
        (
            [[[0, 255]], [[255, 0]]],
            r"only the class 0 besides 255.*set dataset.values to \[0,255\]",
        ),
        ([[[0, 0]], [[0, 0]]], "have only the class 0: expected two or more"),
        ([[[3, 3]], [[3, 255]]], "have only the class 3 besides 255"),
    ],
)
def test_fewer_than_two_classes_are_refused(tmp_path, label_maps, reason):
    dataset_cfg = config.Dataset(name="folder", path=str(folder_of(tmp_path, *label_maps)))
    with pytest.raises(UserError, match=reason):
        data.LabeledImages(dataset_cfg, "").check_classes()


def test_masks_of_0_and_255_have_two_classes_with_values(tmp_path):
    path = str(folder_of(tmp_path, [[0, 255, 255]]))
    dataset = data.LabeledImages(config.Dataset(name="folder", path=path, values=(0, 255)), "")
    dataset.check_classes()
    assert dataset.n_classes == 2 and dataset.classes == ["0", "255"]
    assert dataset[0][1].tolist() == [[0, 1, 1]]


def test_split_of_one_class_can_be_scored_but_not_an_unlabeled_one(tmp_path):
    def dataset(labels):
        path = str(folder_of(tmp_path, labels))
        return data.LabeledImages(config.Dataset(name="folder", path=path), "")

    dataset([[0, 255]]).check_classes(1)
    with pytest.raises(UserError, match="nothing but 255"):
        dataset([[255, 255]]).check_classes(1)


@pytest.mark.parametrize("values", [(0,), (0, 0), (-1, 2)])
def test_invalid_values_are_refused(values):
    with pytest.raises(ValueError, match="dataset.values is .*: expected two or more different"):
        config.Dataset(values=values)


def test_labels_follow_a_turned_photograph(tmp_path):
    """The image has its own label values in red, stored as a camera does."""
    labels = np.arange(4).repeat(16).reshape(4, 16).repeat(16, 0).astype(np.uint8)  # 64x16
    photo = np.repeat(labels[..., None] * 60, 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(photo)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    Image.fromarray(labels).save(tmp_path / "a.png")
    dataset = data.LabeledImages(config.Dataset(name="folder", path=str(tmp_path)), "")
    for image, truth in (dataset[0], dataset.full(0)):
        assert image.shape[:2] == truth.shape == (64, 16)
        assert (np.rint(image[..., 0] / 60) == truth).mean() > 0.95
