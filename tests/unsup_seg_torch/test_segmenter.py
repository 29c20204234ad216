"""Segmenter: decoders, augmentation, loss, schedules and windows against slow references."""

import math

import numpy as np
import pytest
import torch

from unsup_seg_torch import Segmenter, config, encoders, views
from unsup_seg_torch.segmenter import config as knobs
from unsup_seg_torch.segmenter import data, model, train, windows

IGNORE = data.IGNORE
CPU = torch.device("cpu")


def encoder(**sizes):
    torch.manual_seed(0)
    return encoders.build(None, (16, 24), **{"patch_size": 8, "width": 64, "depth": 1} | sizes)


def settings(dataset=None, model=None, **training):
    return knobs.Config(
        dataset=knobs.Dataset(**{"crop": (16, 24)} | (dataset or {})),
        model=knobs.Model(**{"patch_size": 8, "width": 32, "depth": 1} | (model or {})),
        training=knobs.Training(**training),
    )


# ---- the network


@pytest.mark.parametrize("decoder", ["linear", "mask"])
@pytest.mark.parametrize("cells", [1, 4])
@pytest.mark.parametrize("size", [(16, 24), (17, 30), (5, 5)])
def test_every_pixel_of_any_size_has_logits(decoder, cells, size):
    net = Segmenter(encoder(), 5, decoder=decoder, cells=cells).eval()
    images = torch.rand(2, 3, *size)
    rows, columns = -(-size[0] // 8), -(-size[1] // 8)
    assert net.coarse(images).shape == (2, 5, rows * cells, columns * cells)
    assert net(images).shape == (2, 5, *size)


def test_the_linear_decoder_is_a_map_of_each_patch_alone():
    net = Segmenter(encoder(), 3, decoder="linear", cells=2).eval()
    images = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        tokens, found = net.encoder(images)[0, 1:], net.coarse(images)[0]
        for place in range(6):  # a loop over patches, cells and classes
            row, column = divmod(place, 3)
            values = tokens[place] @ net.decoder.head.weight.T + net.decoder.head.bias
            for cell in range(4):
                y, x = 2 * row + cell // 2, 2 * column + cell % 2
                expected = values[3 * cell : 3 * cell + 3]
                torch.testing.assert_close(found[:, y, x], expected, atol=1e-5, rtol=1e-4)


def test_a_mask_is_the_cosine_of_class_and_patch_normalised_over_the_classes():
    net = Segmenter(encoder(), 3, decoder="mask").eval()
    decoder, images = net.decoder, torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        tokens = decoder.project(net.encoder(images)[:, 1:])
        tokens = torch.cat([tokens, decoder.classes], 1)
        for block in decoder.blocks:
            tokens = block(tokens)
        tokens = decoder.norm(tokens)[0]
        expected = torch.empty(6, 3)
        for i in range(6):
            patch = decoder.of_patch.weight @ tokens[i]
            for k in range(3):
                token = decoder.of_class.weight @ tokens[6 + k]
                expected[i, k] = patch @ token / patch.norm() / token.norm()
        mean, variance = expected.mean(1, keepdim=True), expected.var(1, False, keepdim=True)
        expected = (expected - mean) / (variance + 1e-5).sqrt()
        found = net.coarse(images)[0].flatten(1).T
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_the_papers_decoder_has_two_blocks_and_a_head_for_64_dimensions():
    decoder = Segmenter(encoder(width=192, depth=1), 11).decoder
    assert len(decoder.blocks) == 2
    assert {block.attn.num_heads for block in decoder.blocks} == {3}
    default = knobs.Config()
    assert (default.model.decoder, default.model.cells, default.training.optimizer) == (
        *("mask", 1, "sgd"),
    )
    assert (default.training.scale, default.training.single_class) == ((0.5, 2.0), 0.75)


def test_pretrained_without_a_name_is_the_tiny_transformer():
    built = model.build(settings(model={"pretrained": True}).model, 4, (32, 48))
    assert (built.encoder.name, built.encoder.n_heads) == ("vit_tiny_patch16_384", 3)


# ---- the augmentation


def square(h=20, w=30):
    image = np.full((h, w, 3), 60, np.uint8)
    labels = np.zeros((h, w), np.uint8)
    image[5:15, 8:20], labels[5:15, 8:20] = (200, 30, 90), 20
    return image, labels


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_labels_are_never_mixed_and_what_is_beyond_is_ignored():
    cfg = settings(scale=(0.4, 1.7), colour=0.0)
    for seed in range(20):
        shown, labels = data.augment([square(), square(12, 9)], cfg, generator(seed))
        assert set(labels.unique().tolist()) <= {0, 20, IGNORE}
        assert shown.shape == (2, 3, 16, 24) and labels.shape == (2, 16, 24)
        assert not shown.movedim(1, 3)[labels == IGNORE].any()
        inside = shown[:, 0][labels == 20]
        assert inside.numel() == 0 or float(inside.mean()) > 0.5  # 200 / 255, but for edges


def test_images_and_labels_move_together():
    """An image of the labels' own values, augmented, has them but for edges."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (5, 6)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    image = np.repeat(labels[..., None] * 60, 3, 2)
    cfg = settings(scale=(0.7, 1.4), single_class=1.0, colour=0.0)
    for seed in range(10):
        shown, found = data.augment([(image, labels)], cfg, generator(seed))
        known = (found[0] != IGNORE).numpy()
        values = np.rint(shown[0, 0].numpy() * 255 / 60)
        assert (values == found[0].numpy())[known].mean() > 0.8


def test_a_crop_of_one_class_is_drawn_again():
    image, labels = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    labels[:, 32:] = 1
    largest = {}
    for limit in (0.75, 1.0):
        cfg = settings(scale=(1.0, 1.0), single_class=limit, colour=0.0)
        crops = [data.augment([(image, labels)], cfg, generator(seed))[1] for seed in range(60)]
        largest[limit] = np.mean([float((c == 0).float().mean()) in (0.0, 1.0) for c in crops])
    assert largest[0.75] < 0.1 < largest[1.0]


def test_the_matrices_are_a_resizing_by_pillow():
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    # Pillow's bilinear, antialiased, as the mean over the triangle of each pixel
    expected = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR))
    one = torch.ones(1)
    rows = views.weights(0 * one, 2 * one, torch.tensor([40]), 20)
    columns = views.weights(0 * one, 2 * one, torch.tensor([60]), 30)
    found = views.resample(views.stack([image]), rows, columns)[0].permute(1, 2, 0)
    assert np.abs(found.numpy() - expected).max() < 1.01  # Pillow rounds twice


def test_colours_without_change_stay_and_saturation_0_is_gray():
    images, one = torch.rand(2, 3, 4, 5), torch.ones(2)
    same = views.recolour(images, one, one, one, 0 * one)
    torch.testing.assert_close(same, images, atol=1e-5, rtol=1e-5)
    gray = views.recolour(images, one, one, 0 * one, 0 * one)
    expected = (images * torch.tensor(views.GRAY).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(gray, expected.expand(-1, 3, -1, -1), atol=1e-5, rtol=1e-5)


# ---- the loss and the schedules


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_the_loss_is_the_mean_over_labelled_pixels(weights):
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    labels[0, :2] = IGNORE
    total, weight = 0.0, 0.0
    for i in range(2):
        for y in range(4):
            for x in range(5):
                k = int(labels[i, y, x])
                if k != IGNORE:
                    of_class = 1.0 if weights is None else float(weights[k])
                    values = [math.exp(v) for v in logits[i, :, y, x].tolist()]
                    total -= of_class * math.log(values[k] / sum(values))
                    weight += of_class
    assert float(train.pixel_loss(logits, labels, weights)) == pytest.approx(total / weight)


def test_the_accuracy_is_that_of_a_loop():
    torch.manual_seed(2)
    logits, labels = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 3, 5))
    labels[1, 2] = IGNORE
    right = [
        int(logits[i, :, y, x].argmax()) == int(labels[i, y, x])
        for i, y, x in np.ndindex(2, 3, 5)
        if labels[i, y, x] != IGNORE
    ]
    assert float(train.accuracy(logits, labels)) == pytest.approx(np.mean(right))
    assert float(train.accuracy(logits, torch.full_like(labels, IGNORE))) == 0


def test_a_batch_without_any_label_has_loss_0():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.full((1, 2, 2), IGNORE)
    for weights in (None, torch.ones(3)):
        value = train.pixel_loss(logits, labels, weights)
        value.backward()
        assert float(value.detach()) == 0 and not logits.grad.any()


def test_rates_are_the_papers_polynomial_or_a_cosine_after_a_rise():
    poly = knobs.Training(lr=1e-3)
    rates = [train.learning_rate(poly, i, 100) for i in (0, 50, 99, 100)]
    assert rates == pytest.approx([1e-3, 1e-3 * 0.5**0.9, 1e-3 * 0.01**0.9, 1e-5])
    cosine = knobs.Training(optimizer="adamw", lr=1.0, warmup=0.2)
    rates = [train.learning_rate(cosine, i, 100) for i in (0, 10, 20, 60, 100)]
    assert rates == pytest.approx([1 / 21, 11 / 21, 1, 0.5, 0])


def test_norms_biases_and_tokens_do_not_decay():
    net = Segmenter(encoder(), 3)
    decayed, others = train.optimizer(knobs.Training(weight_decay=0.1), net).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
    assert all(p.ndim > 1 for p in decayed["params"])
    tokens = [net.encoder.net.pos_embed, net.encoder.net.cls_token, net.decoder.classes]
    assert all(any(p is token for p in others["params"]) for token in tokens)
    assert len(decayed["params"]) + len(others["params"]) == len(list(net.parameters()))


class Scenes(list):
    n_classes = 2


def test_class_weights_make_a_pixel_weigh_one_on_average():
    labels = np.zeros((10, 10), np.uint8)
    labels[0, :4], labels[1] = 1, IGNORE
    weights = train.class_weights(knobs.Training(balance=1.0), Scenes([(labels, labels)]))
    # 86 and 4 of 90 pixels; weights in the ratio 86 / 4, both classes alike in sum
    assert weights.tolist() == pytest.approx([90 / (2 * 86), 90 / (2 * 4)])
    assert train.class_weights(knobs.Training(), Scenes()) is None


def test_it_learns_a_square_and_the_average_follows():
    cfg = settings(
        optimizer="adamw", lr=3e-3, batch_size=2, n_epochs=60, average=0.9, scale=(1.0, 1.0),
        dataset={"crop": (20, 30)}, model={"decoder": "linear", "drop_path": 0.0, "cells": 2},
    )  # fmt: skip
    image, labels = square()
    labels = (labels > 0).astype(np.uint8)
    state = train.begin(cfg, 2, CPU)
    assert all(not p.requires_grad for p in state.kept.parameters())
    for _ in range(cfg.training.n_epochs):
        list(train.train_epoch(cfg, state, Scenes([(image, labels)] * 2)))
    for net in (state.net, state.kept):
        found = windows.probabilities(net.eval(), image, cfg).argmax(0)
        assert (found == labels).mean() > 0.95
    pairs = zip(state.net.parameters(), state.kept.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)


def test_an_epoch_goes_on_where_it_stopped():
    cfg = settings(batch_size=2)
    scenes = Scenes([square(20 + i, 30) for i in range(5)])
    finished_run = list(data.batches(scenes, cfg, 1))
    rest = list(data.batches(scenes, cfg, 1, first=1))
    assert [len(images) for images, _ in finished_run] == [2, 2, 1]
    for one, two in zip(finished_run[1:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(finished_run[0][0], next(data.batches(scenes, cfg, 2))[0])


# ---- windows


def test_windows_cover_the_side_and_the_last_ends_with_it():
    assert windows.anchors(100, 40, 30) == [0, 30, 60]
    assert windows.anchors(101, 40, 30) == [0, 30, 60, 61]
    assert windows.anchors(40, 40, 8) == [0] and windows.anchors(20, 40, 8) == [0]


class Position(torch.nn.Module):
    """Logits that say where in its window a pixel lies, and how bright it is."""

    n_classes = 2

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        columns = torch.arange(images.shape[3]).expand(len(images), images.shape[2], -1).float()
        return torch.stack([columns, 10 * images[:, 0]], 1)


def test_a_pixel_has_the_mean_over_the_windows_that_see_it():
    image = torch.rand(3, 7, 11)
    found = windows.logits(Position(), image, (4, 5), stride=3)
    total, count = torch.zeros(7, 11), torch.zeros(7, 11)
    for y in windows.anchors(7, 4, 3):
        for x in windows.anchors(11, 5, 3):
            for i in range(4):
                for j in range(5):
                    total[y + i, x + j] += j
                    count[y + i, x + j] += 1
    torch.testing.assert_close(found[0], total / count)
    torch.testing.assert_close(found[1], 10 * image[0])


def test_scales_and_mirrors_are_a_mean_of_probabilities():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    net = Segmenter(encoder(), 3, decoder="linear").eval()

    def probabilities(**options):
        return windows.probabilities(net, image, settings(model=options))

    plain, mirrored = probabilities(), windows.probabilities(net, image[:, ::-1].copy(), settings())
    torch.testing.assert_close(
        probabilities(flip=True), (plain + mirrored[..., ::-1]) / 2, atol=1e-6, rtol=1e-5
    )
    both = probabilities(scales=(1.0, 2.0))
    expected = (plain + probabilities(scales=(2.0,))) / 2
    np.testing.assert_allclose(both, expected, atol=1e-6)
    np.testing.assert_allclose(both.sum(0), 1, atol=1e-5)
    assert probabilities(crf_iterations=1).shape == (3, 16, 24)


def test_images_are_reduced_to_the_short_side_and_answered_at_their_own():
    assert data.short((40, 60), 20) == (20, 30) and data.short((60, 40), 20) == (30, 20)
    assert data.short((40, 60), None) == (40, 60)
    net = Segmenter(encoder(), 3).eval()
    image = np.zeros((40, 60, 3), np.uint8)
    cfg = settings(dataset={"short_side": 16})
    assert windows.probabilities(net, image, cfg).shape == (3, 40, 60)


def test_digits_on_canvases_are_the_same_each_time_and_ink_is_a_digit():
    train_set, val = (data.Scenes(knobs.Dataset(n_images=4), s) for s in ("train", "val"))
    assert (len(train_set), train_set.n_classes, train_set.classes[:2]) == (4, 11, ["ground", "0"])
    image, labels = train_set[0]
    assert image.shape == (64, 64, 3) and labels.shape == (64, 64)
    again = data.Scenes(knobs.Dataset(n_images=4), "train")[0]
    assert np.array_equal(image, again[0]) and np.array_equal(labels, again[1])
    assert not np.array_equal(image, val[0][0])
    digit = (labels != IGNORE) & (labels > 0)
    assert image[digit].mean() > image[labels == 0].mean() + 40


def test_the_short_options_of_the_original_command_name_it():
    assert set(config.CONFIGS) == set(config.DEFAULTS)
