"""Photographs of any size, and random crops that depend on seed, epoch and batch alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from unsup_seg_torch.wnet import config, data


@pytest.fixture
def photos():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((20, 30), (25, 18), (22, 22))]


def make_config(**training):
    sizes = {"crops": 4, "batch_size": 5} | training
    return config.Config(dataset=config.Dataset(crop=16), training=config.Training(**sizes))


def test_epoch_has_the_same_number_of_crops_per_image(photos):
    for i, photo in enumerate(photos):
        photo[:] = i
    batches = list(data.batches(photos, make_config(), epoch=0))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    values = torch.cat([batch[:, 0, 0, 0] for batch in batches]) * 255
    assert torch.bincount(values.round().int()).tolist() == [4, 4, 4]


def test_epoch_continues_from_any_batch(photos):
    whole = list(data.batches(photos, make_config(), epoch=1))
    rest = list(data.batches(photos, make_config(), epoch=1, first=1))
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))
    other = next(data.batches(photos, make_config(), epoch=2))
    assert not torch.equal(whole[0], other)


def test_crop_is_a_part_of_its_image_mirrored_or_not(photos):
    def parts(image):
        windows = np.lib.stride_tricks.sliding_window_view(image, (16, 16), axis=(0, 1))
        return {np.moveaxis(window, 0, -1).tobytes() for row in windows for window in row}

    known = set().union(*(parts(image) for image in photos))
    known |= set().union(*(parts(image[:, ::-1]) for image in photos))
    for batch in data.batches(photos, make_config(), epoch=0):
        for crop in (batch * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy():
            assert crop.tobytes() in known


def test_crops_are_no_larger_than_the_smallest_image_of_a_batch(photos):
    cfg = config.Config(
        dataset=config.Dataset(crop=None), training=config.Training(batch_size=12, crops=4)
    )
    (batch,) = data.batches(photos, cfg, epoch=0)
    assert batch.shape == (12, 3, 20, 18)


def test_photographs_are_installed_and_reduced():
    dataset = data.Photographs(config.Dataset(max_side=60, n_images=3))
    assert len(dataset) == 3 and all(max(image.shape) == 60 for image in dataset.images)
    assert max(dataset.full(0).shape) > 60 and len(set(dataset.names)) == 3


def test_frames_are_sorted_by_number(tmp_path):
    for name in ("f10.png", "f9.png", "f1b2.png", "10.png", "9.png"):
        Image.new("RGB", (6, 4)).save(tmp_path / name)
    dataset = data.Photographs(config.Dataset(name="folder", path=str(tmp_path)))
    assert dataset.names == ["9", "10", "f1b2", "f9", "f10"]


def test_ade20k_images_are_those_of_its_splits(tmp_path):
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        for split, n in (("training", 3), ("validation", 1)):
            for i in range(n):
                path = tmp_path / f"ADEChallengeData2016/{kind}/{split}/{split}_{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB" if suffix == "jpg" else "L", (12, 8)).save(path)
    dataset = config.Dataset(name="ade20k", split="train", root=str(tmp_path), n_images=2)
    assert data.Photographs(dataset).names == ["training_0", "training_1"]
    assert data.Photographs(dataset, "val").names == ["validation_0"]
