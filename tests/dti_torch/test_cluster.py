import copy

import numpy as np
import pytest
import torch
from torch import nn

from dti_torch import cluster, config, model, train


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pictures(n, c=1):
    """Random pictures (n, c, 6, 7), no two alike."""
    return torch.randint(256, (n, c, 6, 7), dtype=torch.uint8)


def of(init, n_prototypes=5, **options):
    return config.Model(n_prototypes=n_prototypes, init=init, **options)


@pytest.mark.parametrize("init", ["sample", "kmeans", "soup", "constant"])
def test_first_prototypes_are_images_of_the_set_s_shape_and_depend_on_the_seed_alone(init):
    images = pictures(30, c=3)
    first = cluster.initial_prototypes(images, of(init), seed=1)
    assert first.shape == (5, 3, 6, 7) and first.dtype == torch.float32
    assert 0 <= first.min() and first.max() <= 1
    torch.rand(7)  # the state of the global generator has no say
    assert torch.equal(cluster.initial_prototypes(images, of(init), seed=1), first)
    other = cluster.initial_prototypes(images, of(init), seed=2)
    assert torch.equal(other, first) == (init == "constant")


def test_sampled_prototypes_are_images_and_never_the_same_one_twice():
    images = pictures(8)
    first = cluster.initial_prototypes(images, of("sample", 8), seed=0)
    found = (first[:, None] * 255).round() == images
    assert torch.equal(found.all(dim=(2, 3, 4)).sum(0), torch.ones(8))  # each of the 8, once


def test_constant_prototypes_have_the_value_that_was_asked_for():
    first = cluster.initial_prototypes(pictures(5), of("constant", init_value=0.25), seed=0)
    assert (first == 0.25).all()


def test_kmeans_prototypes_are_the_means_of_the_groups():
    dark, bright = torch.randint(0, 10, (20, 1, 6, 7)), torch.randint(240, 250, (30, 1, 6, 7))
    images = torch.cat([dark, bright]).byte()
    first = cluster.initial_prototypes(images, of("kmeans", 2), seed=0)
    means = torch.stack([group.float().mean(0) / 255 for group in (dark, bright)])
    torch.testing.assert_close(first[first.mean((1, 2, 3)).argsort()], means)


def test_first_sigmas_and_var_min_are_the_variance_around_each_prototype():
    images = torch.cat([pictures(40) // 4, 255 - pictures(40) // 4])
    prototypes = torch.stack([images[:40].float().mean(0), images[40:].float().mean(0)]) / 255
    sigmas = cluster.initial_sigmas(images, prototypes, var_min=0.001)
    expected = np.stack([images[:40].numpy().var(0), images[40:].numpy().var(0)]) / 255**2
    np.testing.assert_allclose(sigmas.square() + 0.001, expected, rtol=1e-4)


def test_first_sigmas_are_finite_where_images_do_not_vary_or_are_absent():
    images = torch.full((6, 1, 6, 7), 255, dtype=torch.uint8)
    prototypes = torch.stack([torch.ones(1, 6, 7), torch.zeros(1, 6, 7)])
    sigmas = cluster.initial_sigmas(images, prototypes, var_min=0.0625)
    assert sigmas.isfinite().all() and (sigmas > 0).all()


def test_the_baseline_separates_what_differs_in_brightness_whatever_the_size():
    images = torch.zeros(20, 3, 50, 70, dtype=torch.uint8)
    images[:8] = 200
    clusters = cluster.pixel_kmeans(images, 2, seed=0)
    assert len(set(clusters[:8])) == len(set(clusters[8:])) == 1 and clusters[0] != clusters[8]


def test_usage_counts_wins_what_they_cost_and_what_the_second_best_would():
    distances = torch.tensor([[1.0, 4.0, 9.0], [5.0, 3.0, 9.0], [2.0, 8.0, 7.0]])
    expected = [
        [2.0, 1.0, 0.0],  # images
        [0.0 + 1.0, 2.0, 0.0],  # distance above 1, the least
        [3.0 + 5.0, 2.0, 0.0],  # 4 - 1 and 7 - 2; 5 - 3
    ]
    assert cluster.usage(distances).tolist() == expected


def test_a_single_prototype_is_never_redundant():
    used = cluster.usage(torch.rand(5, 1))
    assert used[0].item() == 5
    assert cluster.find_redundant(used, torch.zeros(1), redundancy=1.0) is None


@pytest.mark.parametrize(
    ("redundancy", "settling", "expected"),
    [
        (0.2, [0, 0, 0], (1, 2)),  # 1 is missed by 1.0, less than 0.2 x 10
        (0.1, [0, 0, 0], None),  # not less than 0.1 x 10
        (0.5, [0, 1, 0], (0, 2)),  # 1 was moved a moment ago; 4.0 < 0.5 x 10
        (0.2, [0, 0, 1], None),  # 2 was: 1.0 is more than 0.2 x 3
        (1.0, [1, 1, 1], None),
    ],
)
def test_the_least_missed_prototype_moves_to_the_worst_cluster(redundancy, settling, expected):
    used = torch.tensor([[9.0, 9.0, 9.0], [3.0, 2.0, 10.0], [4.0, 1.0, 8.0]])
    assert cluster.find_redundant(used, torch.tensor(settling), redundancy) == expected


def stepped(name="dtikmeans"):
    """A model and its optimizer after steps that moved every prototype; tps is not on yet."""
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
    noisy = net.prototypes.detach().repeat(3, 1, 1, 1) + 0.2 * torch.rand(12, 1, 6, 7)
    value, _ = net.loss(noisy)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()


def per_prototype(net):
    return {name: p for name, p in net.named_parameters() if not name.startswith("encoder.")}


@pytest.mark.parametrize("name", ["dtikmeans", "dtigmm"])
def test_a_reassigned_prototype_is_its_donor_but_for_a_little_noise(name):
    net, optimizer = stepped(name)
    before = copy.deepcopy(net)
    cluster.reassign(net, optimizer, [1, 3], 2, torch.Generator().manual_seed(0))
    for name, parameter in per_prototype(net).items():
        original = before.get_parameter(name)
        assert torch.equal(parameter[0], original[0])
        if name != "prototypes":
            assert (parameter[[1, 2, 3]] == original[2]).all(), name
    moved = net.prototypes - before.prototypes[2]
    for k in (1, 2, 3):  # the donor as well, so that no two start alike
        assert 0 < moved[k].abs().max() < 6e-4  # 42 draws of 1e-4
    assert len(net.prototypes.flatten(1).unique(dim=0)) == 4


def test_moments_are_copied_with_the_prototype():
    net, optimizer = stepped()
    cluster.reassign(net, optimizer, [1, 3], 2, torch.Generator())
    for name in ("prototypes", "regressors.1.weights.2", "regressors.1.biases.0"):
        state = optimizer.state[net.get_parameter(name)]
        for moment in (state["exp_avg"], state["exp_avg_sq"]):
            assert moment[2].any() and (moment[[1, 3]] == moment[2]).all()


def test_a_copy_and_its_donor_go_their_own_ways():
    net, optimizer = stepped()
    cluster.reassign(net, optimizer, [1], 2, torch.Generator())
    before = {name: p.detach().clone() for name, p in per_prototype(net).items()}
    net.prototypes.data[1] += 0.3  # the images next to it are others
    step(net, optimizer)
    for name in ("prototypes", "regressors.1.weights.2"):
        change = net.get_parameter(name) - before[name]
        moment = optimizer.state[net.get_parameter(name)]["exp_avg"]
        assert not torch.equal(change[1], change[2]), name
        assert not torch.equal(moment[1], moment[2]), name


def test_the_same_generator_makes_the_same_noise():
    net, optimizer = stepped()
    twin = copy.deepcopy(net)
    for each in (net, twin):
        cluster.reassign(each, optimizer, [0], 1, torch.Generator().manual_seed(5))
    assert torch.equal(net.prototypes, twin.prototypes)


def test_every_empty_cluster_starts_again_as_the_largest_at_one_check():
    cfg = config.Config(
        model=config.Model(n_prototypes=4, encoder="strided", transformations=("affine",))
    )
    state = train.begin(cfg, pictures(20))
    nn.init.normal_(state.net.regressors["0"].biases[2])
    state.usage[0] = torch.tensor([30.0, 1.0, 68.0, 1.0])  # 0.2 / 4 is 5 %
    train.check(cfg, state, None, 0.0)
    biases = state.net.regressors["0"].biases[2]
    assert torch.equal(biases[1], biases[2]) and torch.equal(biases[3], biases[2])
    assert not torch.equal(biases[0], biases[2])
    assert not state.usage.any()  # counted anew
