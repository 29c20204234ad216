"""Training without a run folder, on images whose classes are known."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from common import UserError, metrics
from deepcluster_torch import config, train
from deepcluster_torch.cluster import final
from deepcluster_torch.data.batches import batches
from deepcluster_torch.model import features
from deepcluster_torch.modes import v1
from deepcluster_torch.modes.state import initial_state

SMALL = {"arch": "resnet", "width": 4, "n_blocks": 1, "n_clusters": 3, "projection": 16}
QUICK = {"n_epochs": 3, "batch_size": 16, "kmeans_iterations": 10, "crop_scale": (0.5, 1.0)}


@pytest.fixture(autouse=True)
def random_state():
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="module")
def images():
    """90 images (n, 8, 8, 3), 60 dark, 20 medium and 10 light, shuffled, and their classes."""
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat([0, 1, 2], [60, 20, 10]))
    gray = np.array([40, 120, 210])[labels][:, None, None, None]
    pixels = np.clip(gray + random.normal(0, 15, (90, 8, 8, 3)), 0, 255)
    return pixels.astype(np.uint8), labels


def config_of(mode, model=(), **training):
    return config.Config(
        model=config.Model(**SMALL | {"mode": mode, "embedding": 8} | dict(model)),
        training=config.Training(**QUICK | training),
    )


def initial(cfg, images):
    shape = images.shape[1:]
    return initial_state(cfg, cfg.model.mode, len(images), shape, torch.device("cpu"))


def trained(cfg, images):
    state = initial(cfg, images)
    for _ in range(cfg.training.n_epochs):
        for _ in train.train_epoch(cfg, state, images):
            pass
    return state


# ---- pseudo-labels and their images


def test_epoch_draws_every_cluster_equally_often(images):
    pixels, _ = images
    cfg = config_of("v1", reassign=1.0)
    state = initial(cfg, pixels)
    v1.recluster(cfg, state, pixels)
    order = v1.epoch_order(cfg.training, state)
    pairs = list(batches(pixels, 16, order))
    drawn = torch.cat([indices for _, indices in pairs])
    assert len(drawn) == 90
    for batch, indices in pairs:
        np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), pixels[indices.numpy()])
    counts = torch.bincount(state.assignments[0][drawn], minlength=3)
    assert len(torch.bincount(state.assignments[0]).unique()) > 1, "the clusters are skewed"
    assert counts.tolist() == [30, 30, 30]


def test_labels_stay_with_their_images_over_the_epochs(images):
    # with labels looked up in a list of another order, only the first epoch could be learned
    pixels, _ = images
    unchanged = {"crop_scale": (1.0, 1.0), "flip": False}
    cfg = config_of("v1", {"pca_dim": 4, "eigen_power": 0.0}, n_epochs=3, reassign=10, **unchanged)
    state = trained(cfg, pixels)
    state.net.eval()
    batch = next(batches(pixels, 90))[0].float() / 255
    with torch.no_grad():
        predicted = state.net["head"](state.trunk(batch)).argmax(1)
    assert (predicted == state.assignments[0]).float().mean() > 0.85


@pytest.mark.parametrize("sampler", ["uniform", "natural", "released"])
def test_reassign_is_the_fraction_of_images_per_epoch(images, sampler):
    pixels, _ = images
    state = trained(config_of("v1", sampler=sampler, reassign=0.5, n_epochs=1), pixels)
    assert state.step == 3 and state.losses[1] == 45  # 16 + 16 + 13


def test_v1_ends_in_n_clusters(images):
    pixels, classes = images
    cfg = config_of("v1", lr=0.01)
    clustering = final.fit(features.extract(trained(cfg, pixels).net, pixels, cfg), cfg)
    assert len(clustering.centroids) == 3


@pytest.mark.parametrize("n_crops", [1, 2])
def test_v2_memory_has_an_embedding_of_every_large_crop(images, n_crops):
    pixels, _ = images
    cfg = config_of("v2", {"heads": (6, 4)}, n_crops=n_crops, n_small_crops=1, n_epochs=1)
    state = trained(cfg, pixels)
    assert state.memory.shape == (n_crops, 90, 8)
    torch.testing.assert_close(state.memory.norm(dim=2), torch.ones(n_crops, 90))
    assert state.assignments.shape == (2, 90) and state.assignments.amax(1).tolist() == [5, 3]


def test_v2_finds_the_classes_of_the_images(images):
    pixels, classes = images
    cfg = config_of("v2", {"heads": (6,), "eigen_power": 0.0}, n_epochs=5, lr=0.05)
    values = features.extract(trained(cfg, pixels).net, pixels, cfg)
    clusters = final.fit(values, cfg).assign(values).clusters
    assert metrics.purity(classes, clusters) > 0.8  # a single cluster would have 60 of 90


def test_head_has_as_many_outputs_as_pic_finds_clusters(images):
    pixels, _ = images
    state = trained(config_of("v1", {"clustering": "pic"}, n_epochs=2), pixels)
    n_clusters = int(state.assignments[0].max()) + 1
    assert n_clusters > 3 and len(state.net["head"].weight) == n_clusters
    assert state.optimizers["head"].param_groups[0]["params"][0] is state.net["head"].weight


def test_only_a_warm_start_keeps_the_head(images):
    pixels, _ = images
    for warm_start in (False, True):
        cfg = config_of("v1", warm_start=warm_start, n_epochs=1)
        state = trained(cfg, pixels)
        before, labels = state.net["head"].weight.clone(), state.assignments[0].clone()
        v1.recluster(cfg, state, pixels)
        assert torch.equal(state.net["head"].weight, before) == warm_start
        if warm_start:  # ids keep their meaning although the features have changed
            assert (state.assignments[0] == labels).float().mean() > 0.5


def test_one_pass_clusters_the_features_of_the_crops(images, monkeypatch):
    pixels, classes = images
    cfg = config_of("v1", {"pca_dim": 2}, one_pass=True, lr=0.01)
    state, passes = initial(cfg, pixels), []
    extract = features.extract

    def counted(*arguments):
        passes.append(state.epoch)
        return extract(*arguments)

    monkeypatch.setattr(features, "extract", counted)
    for epoch in range(3):
        before = state.memory.clone()
        for _ in train.train_epoch(cfg, state, pixels):
            pass
        order = v1.epoch_order(cfg.training, dataclasses.replace(state, epoch=epoch))
        changed = (state.memory[0] != before[0]).any(1).nonzero().flatten()
        if epoch:  # in the first epoch, the separate pass has changed all of them
            assert changed.tolist() == order.unique().tolist()
    state.memory[0] = (
        torch.randn(state.memory[0].shape) + 20 * torch.eye(3, state.memory.shape[2])[classes]
    )
    v1.recluster(cfg, state, pixels)
    assert metrics.clustering_accuracy(classes, state.assignments[0].numpy()) == 1
    assert passes == [0]


def test_labels_stay_between_clusterings(images):
    pixels, _ = images
    cfg = config_of("v1", recluster_every=2)
    state, labels = initial(cfg, pixels), []
    for _ in range(3):
        for _ in train.train_epoch(cfg, state, pixels):
            pass
        labels.append(state.assignments.clone())
    assert torch.equal(labels[0], labels[1])


# ---- learning rates and warnings


def factors(n=10, **options):
    cfg = config.Training(n_epochs=n, **options)
    return [round(train.lr_factor(cfg, epoch), 4) for epoch in range(n)]


def test_learning_rate_follows_its_schedule():
    assert factors() == [1] * 10
    assert factors(schedule="step", step_size=4) == [1] * 4 + [0.1] * 4 + [0.01] * 2
    # half a cosine from 1 to 0.2: 0.6 in the middle
    assert factors(schedule="cosine", final_lr=0.2)[5] == pytest.approx(0.6)
    # linear from 0.01 to 1 in two epochs: 0.505 in the middle
    assert factors(warmup=0.2)[:3] == [0.01, 0.505, 1]
    assert factors(warmup=0.2, warmup_start=0.2)[:3] == [0.2, 0.6, 1]


def test_body_and_head_have_their_own_learning_rates(images):
    cfg = config_of("v1", lr=0.1, head_lr=0.5, schedule="step", step_size=1, gamma=0.5)
    state = initial(cfg, images[0])
    train.set_learning_rates(cfg.training, state, 1.0)
    assert state.optimizers["body"].param_groups[0]["lr"] == 0.05
    assert state.optimizers["head"].param_groups[0]["lr"] == 0.25


def test_plateau_drops_the_rate_after_patience_bad_epochs(images):
    cfg = config.Training(schedule="plateau", patience=2, gamma=0.5)
    state = initial(config_of("v1"), images[0])
    drops = []
    for loss in (3.0, 2.0, 2.0, 2.5, 2.1, 1.9):  # the fifth is the third epoch without a lower one
        state.losses = torch.tensor([loss, 1.0])
        train.update_plateau(cfg, state)
        drops.append(state.n_lr_drops)
    assert drops == [0, 0, 0, 0, 1, 1]
    assert train.lr_factor(cfg, 7, state.n_lr_drops) == 0.5


def test_collapse_is_one_warning(images, caplog):
    pixels = np.full_like(images[0], 100)  # equal images have equal features
    with caplog.at_level(logging.WARNING):
        trained(config_of("v1", n_epochs=2), pixels)
    warnings = [record.message for record in caplog.records if "collapse" in record.message]
    assert len(warnings) == 1 and "spread of the features 0.000" in warnings[0]


def test_infinite_loss_is_an_error(images):
    with pytest.raises(UserError, match=r"(loss|features) became (nan|inf|NaN)"):
        trained(config_of("v2", lr=1e30), images[0])
