"""Pictures of any sizes, and crops that depend on seed, epoch and batch alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from unsup_seg_torch import config, data, flags


@pytest.fixture
def pictures():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((20, 30), (25, 18), (22, 22))]


def settings(**training):
    sizes = {"crops": 4, "batch_size": 5} | training
    return config.Config(dataset=config.Dataset(crop=16), training=config.Training(**sizes))


def test_an_epoch_has_every_picture_as_often_as_the_config_says(pictures):
    for i, picture in enumerate(pictures):
        picture[:] = i
    batches = list(data.batches(pictures, settings(), epoch=0))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    seen = torch.cat([batch[:, 0, 0, 0] for batch in batches]) * 255
    assert torch.bincount(seen.round().int()).tolist() == [4, 4, 4]


def test_an_epoch_goes_on_where_it_stopped(pictures):
    finished_run = list(data.batches(pictures, settings(), epoch=1))
    rest = list(data.batches(pictures, settings(), epoch=1, first=1))
    assert all(torch.equal(a, b) for a, b in zip(finished_run[1:], rest, strict=True))
    other = next(data.batches(pictures, settings(), epoch=2))
    assert not torch.equal(finished_run[0], other)


def test_a_crop_is_a_part_of_its_picture_mirrored_or_not(pictures):
    def parts(image):
        windows = np.lib.stride_tricks.sliding_window_view(image, (16, 16), axis=(0, 1))
        return {np.moveaxis(window, 0, -1).tobytes() for row in windows for window in row}

    known = set().union(*(parts(image) for image in pictures))
    known |= set().union(*(parts(image[:, ::-1]) for image in pictures))
    for batch in data.batches(pictures, settings(), epoch=0):
        for crop in (batch * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy():
            assert crop.tobytes() in known


def test_crops_are_no_larger_than_the_smallest_picture_of_a_batch(pictures):
    cfg = config.Config(
        dataset=config.Dataset(crop=None), training=config.Training(batch_size=12, crops=4)
    )
    (batch,) = data.batches(pictures, cfg, epoch=0)
    assert batch.shape == (12, 3, 20, 18)


def test_the_photographs_are_there_and_reduced():
    found = data.Pictures(config.Dataset(max_side=60, n_images=3))
    assert len(found) == 3 and all(max(image.shape) == 60 for image in found.images)
    assert max(found.full(0).shape) > 60 and len(set(found.names)) == 3


def test_proportions_are_kept_and_small_pictures_left():
    image = np.zeros((50, 100, 3), np.uint8)
    assert data.reduce(image, 40).shape == (20, 40, 3)
    assert data.reduce(image, 100) is image and data.reduce(image, None) is image
    assert data.reduce(np.zeros((1, 100, 3), np.uint8), 10).shape == (1, 10, 3)


def test_short_options_become_keys():
    words = "-m wnet --batch-size=16 -e 3 -lr=0.1 --pretrained --save-logs --config cpu.yml"
    assert flags.translate(words.split()) == [
        *("--model.name", "wnet", "--training.batch_size=16", "--training.n_epochs", "3"),
        *("--training.lr=0.1", "--model.pretrained=true", "--training.save_logs=true"),
        *("--config", "cpu.yml"),
    ]


def test_frames_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("f10.png", "f9.png", "f1b2.png", "10.png", "9.png"):
        Image.new("RGB", (6, 4)).save(tmp_path / name)
    found = data.Pictures(config.Dataset(name="folder", path=str(tmp_path)))
    assert found.names == ["9", "10", "f1b2", "f9", "f10"]


def test_scenes_of_ade20k_are_those_of_its_folders(tmp_path):
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        for split, n in (("training", 3), ("validation", 1)):
            for i in range(n):
                path = tmp_path / f"ADEChallengeData2016/{kind}/{split}/{split}_{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB" if suffix == "jpg" else "L", (12, 8)).save(path)
    dataset = config.Dataset(name="ade20k", split="train", root=str(tmp_path), n_images=2)
    assert data.Pictures(dataset).names == ["training_0", "training_1"]
    assert data.Pictures(dataset, "val").names == ["validation_0"]
