"""The training on images whose clusters are known, without a run folder."""

import dataclasses
import logging
import math

import numpy as np
import pytest
import torch

from common import UserError, metrics
from deepcluster_torch import config, data, frozen, readout, state, train, v1

SMALL = {"arch": "resnet", "width": 4, "n_blocks": 1, "n_clusters": 3, "projection": 16}
QUICK = {"n_epochs": 3, "batch_size": 16, "kmeans_iterations": 10, "crop_scale": (0.5, 1.0)}


@pytest.fixture(autouse=True)
def chance():
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="module")
def images():
    """90 images (n, 8, 8, 3): 60 dark ones, 20 gray, 10 light, in mixed order; and their kinds."""
    random = np.random.default_rng(0)
    kinds = random.permutation(np.repeat([0, 1, 2], [60, 20, 10]))
    gray = np.array([40, 120, 210])[kinds][:, None, None, None]
    pixels = np.clip(gray + random.normal(0, 15, (90, 8, 8, 3)), 0, 255)
    return pixels.astype(np.uint8), kinds


def config_of(mode, model=(), **training):
    return config.Config(
        model=config.Model(**SMALL | {"mode": mode, "embedding": 8} | dict(model)),
        training=config.Training(**QUICK | training),
    )


def begin(cfg, images):
    return state.begin(cfg, cfg.model.mode, len(images), images.shape[1:], torch.device("cpu"))


def trained(cfg, images):
    now = begin(cfg, images)
    for _ in range(cfg.training.n_epochs):
        for _ in train.train_epoch(cfg, now, images):
            pass
    return now


# ---- pseudo-labels and the images that they belong to


def test_an_epoch_draws_every_cluster_equally_often_through_the_data_set(images):
    pixels, _ = images
    cfg = config_of("v1", reassign=1.0)
    now = begin(cfg, pixels)
    v1.recluster(cfg, now, pixels)
    order = v1.order(cfg.training, now)
    batches = list(data.batches(pixels, 16, order))
    chosen = torch.cat([indices for _, indices in batches])
    assert len(chosen) == 90
    # what a batch holds are the images of its indices
    for batch, indices in batches:
        np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), pixels[indices.numpy()])
    draws = torch.bincount(now.assignments[0][chosen], minlength=3)
    assert len(torch.bincount(now.assignments[0]).unique()) > 1, "the clusters are skewed"
    assert draws.tolist() == [30, 30, 30]


def test_labels_stay_with_their_images_over_the_epochs(images):
    # where labels are looked up in a list of another order, no epoch but the first can be learned
    pixels, _ = images
    same = {"crop_scale": (1.0, 1.0), "flip": False}  # what differs is the label alone
    cfg = config_of("v1", {"pca_dim": 4, "eigen_power": 0.0}, n_epochs=3, reassign=10, **same)
    now = trained(cfg, pixels)
    now.net.eval()
    batch = next(data.batches(pixels, 90))[0].float() / 255
    with torch.no_grad():
        found = now.net["head"](now.trunk(batch)).argmax(1)
    assert (found == now.assignments[0]).float().mean() > 0.85


@pytest.mark.parametrize("sampler", ["uniform", "natural", "released"])
def test_an_epoch_has_as_many_images_as_reassign_says(images, sampler):
    pixels, _ = images
    now = trained(config_of("v1", sampler=sampler, reassign=0.5, n_epochs=1), pixels)
    assert now.step == 3 and now.losses[1] == 45  # 16 + 16 + 13


def test_v1_reads_out_the_kinds_of_the_images(images):
    pixels, kinds = images
    cfg = config_of("v1", lr=0.01)
    clusters = readout.fit(readout.features(trained(cfg, pixels).net, pixels, cfg), cfg)
    assert len(clusters.centroids) == 3


@pytest.mark.parametrize("n_crops", [1, 2])
def test_v2_keeps_the_embedding_of_every_crop_in_its_memory(images, n_crops):
    pixels, _ = images
    cfg = config_of("v2", {"heads": (6, 4)}, n_crops=n_crops, n_small_crops=1, n_epochs=1)
    now = trained(cfg, pixels)
    assert now.memory.shape == (n_crops, 90, 8)
    torch.testing.assert_close(now.memory.norm(dim=2), torch.ones(n_crops, 90))
    assert now.assignments.shape == (2, 90) and now.assignments.amax(1).tolist() == [5, 3]


def test_v2_finds_the_kinds_of_the_images(images):
    pixels, kinds = images
    cfg = config_of("v2", {"heads": (6,), "eigen_power": 0.0}, n_epochs=5, lr=0.05)
    found = readout.features(trained(cfg, pixels).net, pixels, cfg)
    clusters = readout.assign(found, readout.fit(found, cfg)).clusters
    assert metrics.purity(kinds, clusters) > 0.8  # one cluster for all would have 60 of 90


def test_pic_finds_its_own_number_of_labels_and_the_head_follows(images):
    pixels, _ = images
    now = trained(config_of("v1", {"clustering": "pic"}, n_epochs=2), pixels)
    n_found = int(now.assignments[0].max()) + 1
    assert n_found > 3 and len(now.net["head"].weight) == n_found
    assert now.optimizers["head"].param_groups[0]["params"][0] is now.net["head"].weight


def test_a_new_head_every_epoch_forgets_and_a_warm_start_does_not(images):
    pixels, _ = images
    for warm_start in (False, True):
        cfg = config_of("v1", warm_start=warm_start, n_epochs=1)
        now = trained(cfg, pixels)
        before, labels = now.net["head"].weight.clone(), now.assignments[0].clone()
        v1.recluster(cfg, now, pixels)
        assert torch.equal(now.net["head"].weight, before) == warm_start
        if warm_start:  # ids keep their meaning, though the features have moved
            assert (now.assignments[0] == labels).float().mean() > 0.5


def test_in_one_pass_the_crops_features_are_clustered_in_the_place_of_a_pass(images, monkeypatch):
    pixels, kinds = images
    cfg = config_of("v1", {"pca_dim": 2}, one_pass=True, lr=0.01)
    now, passes = begin(cfg, pixels), []
    own = readout.features
    monkeypatch.setattr(readout, "features", lambda *given: passes.append(now.epoch) or own(*given))
    for epoch in range(3):
        before = now.memory.clone()
        for _ in train.train_epoch(cfg, now, pixels):
            pass
        drawn = v1.order(cfg.training, now_at(now, epoch)).unique()
        changed = (now.memory[0] != before[0]).any(1).nonzero().flatten()
        if epoch:  # in the first, the pass has changed all of them
            assert changed.tolist() == drawn.tolist()
    now.memory[0] = torch.randn(now.memory[0].shape) + 20 * torch.eye(3, now.memory.shape[2])[kinds]
    v1.recluster(cfg, now, pixels)
    assert metrics.clustering_accuracy(kinds, now.assignments[0].numpy()) == 1
    assert passes == [0]


def now_at(now, epoch):
    return dataclasses.replace(now, epoch=epoch)


def test_between_two_clusterings_labels_stay(images):
    pixels, _ = images
    cfg = config_of("v1", recluster_every=2)
    now, seen = begin(cfg, pixels), []
    for _ in range(3):
        for _ in train.train_epoch(cfg, now, pixels):
            pass
        seen.append(now.assignments.clone())
    assert torch.equal(seen[0], seen[1])


# ---- rates and warnings


def rates(n=10, **options):
    cfg = config.Training(n_epochs=n, **options)
    return [round(train.rate(cfg, epoch), 4) for epoch in range(n)]


def test_rates_follow_their_schedule():
    assert rates() == [1] * 10
    assert rates(schedule="step", step_size=4) == [1] * 4 + [0.1] * 4 + [0.01] * 2
    # half a cosine from 1 to 0.2: in the middle 0.6
    assert rates(schedule="cosine", final_lr=0.2)[5] == pytest.approx(0.6)
    # a tenth of the way up after half of the warm-up, plus a hundredth of the rest
    assert rates(warmup=0.2)[:3] == [0.01, 0.505, 1]


def test_the_body_and_the_head_have_rates_of_their_own(images):
    cfg = config_of("v1", lr=0.1, head_lr=0.5, schedule="step", step_size=1, gamma=0.5)
    now = begin(cfg, images[0])
    train.set_rates(cfg.training, now, 1.0)
    assert now.optimizers["body"].param_groups[0]["lr"] == 0.05
    assert now.optimizers["head"].param_groups[0]["lr"] == 0.25


def test_a_plateau_is_an_epoch_too_many_without_a_lower_loss(images):
    cfg = config.Training(schedule="plateau", patience=2, gamma=0.5)
    now = begin(config_of("v1"), images[0])
    falls = []
    for loss in (3.0, 2.0, 2.0, 2.5, 2.1, 1.9):  # the third epoch without a lower one is one more
        now.losses = torch.tensor([loss, 1.0])
        train.watch_plateau(cfg, now)
        falls.append(now.n_falls)
    assert falls == [0, 0, 0, 0, 1, 1]
    assert train.rate(cfg, 7, now.n_falls) == 0.5


def test_a_collapse_is_one_warning(images, caplog):
    pixels = np.full_like(images[0], 100)  # equal images have equal features
    with caplog.at_level(logging.WARNING):
        trained(config_of("v1", n_epochs=2), pixels)
    warnings = [record.message for record in caplog.records if "collapse" in record.message]
    assert len(warnings) == 1 and "spread 0.0" in warnings[0]


def test_an_infinite_loss_stops_with_the_step_named(images):
    with pytest.raises(UserError, match=r"(loss|features) became (nan|inf|NaN)"):
        trained(config_of("v2", lr=1e30), images[0])


# ---- what is decided by the number of images


@pytest.mark.parametrize(
    ("options", "n", "mode"),
    [
        ({}, 99_999, "v2"),
        ({}, 100_000, "v1"),
        ({"weights": "w.pth"}, 9_999, "frozen"),
        ({"pretrained": True}, 10_000, "v2"),
        ({"mode": "v1"}, 10, "v1"),
    ],
)
def test_the_mode_goes_by_the_number_of_images(options, n, mode):
    found, why = state.decide(config.Model(**options), n)
    assert found == mode and why


def test_a_frozen_trunk_has_to_be_given():
    with pytest.raises(UserError, match="give model.weights FILE, or model.pretrained true"):
        state.decide(config.Model(mode="frozen"), 10)


def test_heads_are_ten_times_finer_where_there_are_images_enough():
    assert state.head_sizes(config.Model(n_clusters=10), 5000) == (100, 100, 100)
    assert state.head_sizes(config.Model(n_clusters=10), 500) == (50, 50, 50)
    assert state.head_sizes(config.Model(n_clusters=10), 20) == (10, 10, 10)
    assert state.head_sizes(config.Model(heads=(7, 9)), 5000) == (7, 9)


def test_features_of_a_frozen_trunk_are_computed_once(images, tmp_path, monkeypatch, caplog):
    pixels, _ = images
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    cfg = config_of("frozen")
    found = frozen.datasets.Images(pixels, None, ["x"] * 90, None, [], "checksum")
    now = begin(cfg, pixels)
    first = frozen.features(cfg, now, found)
    (kept,) = tmp_path.glob("cache/features_*.npy")
    with caplog.at_level(logging.INFO):
        again = frozen.features(cfg, now, found)
    assert torch.equal(first, again) and str(kept) in caplog.text
    kept.write_bytes(kept.read_bytes()[:100])  # cut
    assert torch.equal(frozen.features(cfg, now, found), first)
    with torch.no_grad():  # other weights
        next(now.trunk.parameters()).mul_(2)
    frozen.features(cfg, now, found)
    assert len(list(tmp_path.glob("cache/features_*.npy"))) == 2


def test_a_cache_that_cannot_be_written_is_one_warning(images, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "file"))
    cfg, pixels = config_of("frozen"), images[0]
    found = frozen.datasets.Images(pixels, None, ["x"] * 90, None, [], "checksum")
    assert math.isfinite(frozen.features(cfg, begin(cfg, pixels), found).sum())
    assert caplog.text.count("features are not kept") == 1
