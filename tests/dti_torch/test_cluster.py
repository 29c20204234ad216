import copy

import numpy as np
import pytest
import torch
from torch import nn

from dti_torch import cluster, config, model, train


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_images(n, c=1):
    """Different images (n, c, 6, 7)."""
    return torch.randint(256, (n, c, 6, 7), dtype=torch.uint8)


def model_config(init, n_prototypes=5, **options):
    return config.Model(n_prototypes=n_prototypes, init=init, **options)


@pytest.mark.parametrize("init", ["sample", "kmeans", "random", "constant"])
def test_initial_prototypes_depend_on_the_seed_only(init):
    images = random_images(30, c=3)
    first = cluster.initial_prototypes(images, model_config(init), seed=1)
    assert first.shape == (5, 3, 6, 7) and first.dtype == torch.float32
    assert 0 <= first.min() and first.max() <= 1
    torch.rand(7)  # the global generator has no influence
    assert torch.equal(cluster.initial_prototypes(images, model_config(init), seed=1), first)
    other = cluster.initial_prototypes(images, model_config(init), seed=2)
    assert torch.equal(other, first) == (init == "constant")


def test_sampled_prototypes_are_distinct_images():
    images = random_images(8)
    first = cluster.initial_prototypes(images, model_config("sample", 8), seed=0)
    matches = (first[:, None] * 255).round() == images
    assert torch.equal(matches.all(dim=(2, 3, 4)).sum(0), torch.ones(8))  # each of the 8, once


def test_soup_is_an_alias_of_random():
    images = random_images(8)
    soup, random = (
        cluster.initial_prototypes(images, model_config(init), 3) for init in ("soup", "random")
    )
    assert torch.equal(soup, random)


def test_constant_prototypes_have_the_configured_value():
    cfg = model_config("constant", init_value=0.25)
    first = cluster.initial_prototypes(random_images(5), cfg, seed=0)
    assert (first == 0.25).all()


def test_kmeans_prototypes_are_group_means():
    dark, bright = torch.randint(0, 10, (20, 1, 6, 7)), torch.randint(240, 250, (30, 1, 6, 7))
    images = torch.cat([dark, bright]).byte()
    first = cluster.initial_prototypes(images, model_config("kmeans", 2), seed=0)
    means = torch.stack([group.float().mean(0) / 255 for group in (dark, bright)])
    torch.testing.assert_close(first[first.mean((1, 2, 3)).argsort()], means)


def test_initial_sigmas_match_the_variance_around_each_prototype():
    images = torch.cat([random_images(40) // 4, 255 - random_images(40) // 4])
    prototypes = torch.stack([images[:40].float().mean(0), images[40:].float().mean(0)]) / 255
    sigmas = cluster.initial_sigmas(images, prototypes, var_min=0.001)
    expected = np.stack([images[:40].numpy().var(0), images[40:].numpy().var(0)]) / 255**2
    np.testing.assert_allclose(sigmas.square() + 0.001, expected, rtol=1e-4)


def test_initial_sigmas_without_variance_or_images_are_finite():
    images = torch.full((6, 1, 6, 7), 255, dtype=torch.uint8)
    prototypes = torch.stack([torch.ones(1, 6, 7), torch.zeros(1, 6, 7)])
    sigmas = cluster.initial_sigmas(images, prototypes, var_min=0.0625)
    assert sigmas.isfinite().all() and (sigmas > 0).all()


def test_baseline_separates_dark_and_bright_large_images():
    images = torch.zeros(20, 3, 50, 70, dtype=torch.uint8)
    images[:8] = 200
    clusters = cluster.pixel_kmeans(images, 2, seed=0)
    assert len(set(clusters[:8])) == len(set(clusters[8:])) == 1 and clusters[0] != clusters[8]


def test_removal_costs_are_the_distances_to_the_second_nearest():
    distances = torch.tensor([[1.0, 4.0, 9.0], [5.0, 3.0, 9.0], [2.0, 8.0, 7.0]])
    expected = [3.0 + 5.0, 2.0, 0.0]  # 4 - 1 and 7 - 2; 5 - 3; wins no image
    assert cluster.removal_costs(distances).tolist() == expected


def test_superfluous_prototypes_are_computed_anew_after_each_removal():
    # 0 and 1 are the same cluster: either costs 1, but without the one the other costs 20.
    distances = torch.tensor([[0.0, 1.0, 20.0, 20.0], [1.0, 0.0, 20.0, 20.0]])
    distances = torch.cat([distances, torch.tensor([[20.0, 20.0, 0.0, 3.0], [20, 20, 9, 0]])])
    # costs 1, 1, 3, 9; after 0 is gone 1 costs 19 + 20, and 2 is the cheapest with 3
    assert cluster.superfluous(distances, 2) == [0, 2]


def train_briefly(name="dtikmeans"):
    """A model and its optimizer after a few steps, with tps still inactive."""
    cfg = config.Model(
        name=name,
        n_prototypes=4,
        encoder="strided",
        transformations=("identity", "affine", "tps"),
    )
    net = model.build(cfg, torch.rand(4, 1, 6, 7))
    net.n_active = 2
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(3):
        step(net, optimizer)
    return net, optimizer


def step(net, optimizer):
    clean = net.prototypes.detach().repeat(3, 1, 1, 1)
    noisy = clean + 0.2 * torch.rand_like(clean)
    value, _ = net.loss(noisy)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()


def per_prototype(net):
    return {name: p for name, p in net.named_parameters() if not name.startswith("encoder.")}


@pytest.mark.parametrize("name", ["dtikmeans", "dtigmm"])
def test_reassigned_prototype_is_its_donor_plus_noise(name):
    net, optimizer = train_briefly(name)
    before = copy.deepcopy(net)
    cluster.reassign(net, optimizer, [1, 3], 2, torch.Generator().manual_seed(0))
    for name, parameter in per_prototype(net).items():
        original = before.get_parameter(name)
        assert torch.equal(parameter[0], original[0])
        if name != "prototypes":
            assert (parameter[[1, 2, 3]] == original[2]).all(), name
    noise = net.prototypes - before.prototypes[2]
    for k in (1, 2, 3):  # the donor as well
        assert 0 < noise[k].abs().max() < 6e-4  # 42 draws of 1e-4
    assert len(net.prototypes.flatten(1).unique(dim=0)) == 4


def test_reassign_copies_adam_moments():
    net, optimizer = train_briefly()
    cluster.reassign(net, optimizer, [1, 3], 2, torch.Generator())
    for name in ("prototypes", "regressors.1.weights.2", "regressors.1.biases.0"):
        state = optimizer.state[net.get_parameter(name)]
        for moment in (state["exp_avg"], state["exp_avg_sq"]):
            assert moment[2].any() and (moment[[1, 3]] == moment[2]).all()


def test_reassigned_copy_and_donor_diverge():
    net, optimizer = train_briefly()
    cluster.reassign(net, optimizer, [1], 2, torch.Generator())
    before = {name: p.detach().clone() for name, p in per_prototype(net).items()}
    net.prototypes.data[1] += 0.3  # it wins other images
    step(net, optimizer)
    for name in ("prototypes", "regressors.1.weights.2"):
        change = net.get_parameter(name) - before[name]
        moment = optimizer.state[net.get_parameter(name)]["exp_avg"]
        assert not torch.equal(change[1], change[2]), name
        assert not torch.equal(moment[1], moment[2]), name


def test_reassign_noise_depends_on_the_generator_only():
    net, optimizer = train_briefly()
    twin = copy.deepcopy(net)
    for each in (net, twin):
        cluster.reassign(each, optimizer, [0], 1, torch.Generator().manual_seed(5))
    assert torch.equal(net.prototypes, twin.prototypes)


def test_check_reassigns_all_empty_clusters_to_the_largest():
    cfg = config.Config(
        model=config.Model(n_prototypes=4, encoder="strided", transformations=("affine",))
    )
    state = train.initial_state(cfg, random_images(20))
    nn.init.normal_(state.net.regressors["0"].biases[2])
    state.wins[:] = torch.tensor([30.0, 1.0, 68.0, 1.0])  # 0.2 / 4 is 5 %
    train.check_clusters(cfg, state, None, 0.0)
    biases = state.net.regressors["0"].biases[2]
    assert torch.equal(biases[1], biases[2]) and torch.equal(biases[3], biases[2])
    assert not torch.equal(biases[0], biases[2])
    assert not state.wins.any()  # reset


@pytest.mark.parametrize("name", ["dtikmeans", "dtigmm"])
def test_removed_prototypes_take_regressors_and_moments_with_them(name):
    net, optimizer = train_briefly(name)
    before = copy.deepcopy(net)
    moments = {
        p: optimizer.state[p]["exp_avg"] for p in cluster.per_prototype(net) if p in optimizer.state
    }
    assert cluster.remove(net, optimizer, [2, 0]) == [1, 3]
    for name, parameter in per_prototype(net).items():
        assert torch.equal(parameter, before.get_parameter(name)[[1, 3]]), name
        if parameter in moments:
            assert torch.equal(optimizer.state[parameter]["exp_avg"], moments[parameter][[1, 3]])
    step(net, optimizer)  # training continues
    assert net(torch.rand(5, 1, 6, 7)).shape == (5, 2)


def test_surplus_prototypes_are_removed_between_the_two_epochs_of_pruning():
    cfg = config.Model(n_prototypes=8, surplus=0.5, pruning=(2, 5))
    assert cfg.n_initial(100) == 12 and cfg.n_initial(9) == 9
    left = [cfg.n_left(12, epochs, 10) for epochs in (0, 1.9, 2, 2.9, 3, 3.9, 4, 4.9, 5, 10)]
    assert left == [12, 12, 11, 11, 10, 10, 9, 9, 8, 8]
    fractions = config.Model(n_prototypes=8, surplus=0.5, pruning=(0.2, 0.5))
    assert [fractions.n_left(12, epochs, 10) for epochs in (1.9, 2, 5)] == [12, 11, 8]
    assert cfg.n_left(12, 1, 1) == 8  # training ends before the first epoch of pruning
    assert config.Model().n_left(10, 30, 40) == 10  # no surplus


GROUPS = torch.zeros(3, 1, 6, 7, dtype=torch.uint8)  # black, and white in the top or the left half
GROUPS[1, :, :3], GROUPS[2, :, :, :3] = 250, 250


def start_with_a_surplus(pruning, batch_size, prototypes):
    """The config and state of a training on ten images of each group, with four prototypes."""
    cfg = config.Config(
        model=config.Model(
            n_prototypes=3,
            surplus=0.3,
            pruning=(pruning, pruning),
            encoder="strided",
            transformations=("identity",),
        ),
        training=config.Training(n_epochs=3, batch_size=batch_size),
    )
    images = GROUPS.repeat_interleave(10, 0)
    state = train.initial_state(cfg, images)
    state.net.prototypes.data = prototypes / 255
    return cfg, state, images


def test_training_prunes_the_prototype_that_is_closest_to_another():
    prototypes = torch.cat([GROUPS, 0.98 * GROUPS[1:2]])
    cfg, state, images = start_with_a_surplus(1, 30, prototypes)
    list(train.train_epoch(cfg, state, images))
    assert state.numbers.tolist() in ([0, 1, 2], [0, 2, 3])
    list(train.train_epoch(cfg, state, images))
    assert state.winners.unique(return_counts=True)[1].tolist() == [10, 10, 10]


@pytest.mark.parametrize(("threshold", "n_empty"), [(None, 1), (0.0, 0), (0.01, 0), (0.2, 2)])
def test_threshold_of_empty_clusters(monkeypatch, threshold, n_empty):
    # proportions 0.03, 0.17, 0.8 of three clusters; null is 0.2 / 3 = 0.067
    cfg = config.Config(model=config.Model(n_prototypes=3, empty_cluster_threshold=threshold))
    state = train.initial_state(cfg, random_images(20))
    state.wins[:] = torch.tensor([3.0, 17.0, 80.0])
    taken = []
    monkeypatch.setattr(cluster, "reassign", lambda net, optimizer, empty, *_: taken.extend(empty))
    train.check_clusters(cfg, state, None, 1.0)
    assert len(taken) == n_empty


def test_winners_keep_their_numbers_when_a_prototype_is_removed_during_an_epoch():
    prototypes = torch.cat([GROUPS[1:2], 0.99 * GROUPS])  # the first is better than its copy
    cfg, state, images = start_with_a_surplus(1.5, 15, prototypes)
    for _ in range(2):  # half of the second epoch before the removal, half after
        list(train.train_epoch(cfg, state, images))
    assert len(state.numbers) == 3
    assert state.winners.view(3, 10).unique(dim=1).shape == (3, 1)  # one number per group
