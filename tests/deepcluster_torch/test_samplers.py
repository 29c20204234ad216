import numpy as np
import pytest
import torch
from PIL import Image

from deepcluster_torch import data, samplers

SKEWED = torch.tensor([0] * 700 + [1] * 200 + [2] * 60 + [4] * 30 + [5] * 9 + [7])  # 3 and 6 empty
SKEWED = SKEWED[torch.randperm(1000, generator=torch.Generator().manual_seed(9))]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_draws", [1000, 1003, 250, 6, 5])
def test_every_cluster_that_is_not_empty_comes_equally_often(n_draws):
    drawn = samplers.uniform(SKEWED, n_draws, generator())
    assert len(drawn) == n_draws
    counts = torch.bincount(SKEWED[drawn], minlength=8)[[0, 1, 2, 4, 5, 7]]
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", ["uniform", "natural"])
def test_no_image_of_a_cluster_comes_twice_before_all_came_once(name):
    drawn = samplers.draw(name, SKEWED, 1000, generator())
    times = torch.bincount(drawn, minlength=1000)
    for cluster in SKEWED.unique():
        of_cluster = times[SKEWED == cluster]
        assert of_cluster.max() - of_cluster.min() <= 1


def test_natural_draws_keep_the_sizes_of_the_clusters():
    drawn = samplers.natural(SKEWED, 2000, generator())
    assert torch.equal(torch.bincount(drawn), torch.full((1000,), 2))


def test_the_released_draws_follow_the_sizes_though_they_were_meant_to_be_uniform():
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.full(20, 0.5))
    assignments = torch.from_numpy(random.choice(20, 10_000, p=shares))
    sizes = torch.bincount(assignments, minlength=20).double()
    drawn = samplers.released(assignments, 10_000, generator())
    counts = torch.bincount(assignments[drawn], minlength=20).double()
    assert np.corrcoef(sizes, counts)[0, 1] > 0.9
    even = torch.bincount(assignments[samplers.uniform(assignments, 10_000, generator())])
    assert even[even > 0].double().std() < 1 < 100 < counts.std()


def test_released_is_the_authors_two_lists_of_indices_step_by_step():
    assignments = torch.tensor([1, 0, 1, 0, 0, 2])
    in_order_of_clusters = [1, 3, 4, 0, 2, 5]
    meant = samplers.uniform(assignments, 9, generator(3)).tolist()
    drawn = samplers.released(assignments, 9, generator(3)).tolist()
    assert drawn == [in_order_of_clusters[i] for i in meant]


@pytest.mark.parametrize("name", ["uniform", "natural", "released"])
def test_draws_depend_on_the_generator_alone_and_come_in_random_order(name):
    first = samplers.draw(name, SKEWED, 900, generator(1))
    torch.rand(3)
    assert torch.equal(samplers.draw(name, SKEWED, 900, generator(1)), first)
    assert not torch.equal(samplers.draw(name, SKEWED, 900, generator(2)), first)
    halves = SKEWED[first].double().split(450)
    assert abs(halves[0].mean() - halves[1].mean()) < 0.5  # not sorted by cluster


def test_one_cluster_and_one_image_are_enough():
    assert samplers.uniform(torch.zeros(5, dtype=torch.long), 5, generator()).sort().values.tolist()
    assert samplers.released(torch.tensor([3]), 4, generator()).tolist() == [0] * 4


# ---- through the real data set: a folder of images whose pixels are their number


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbered")
    for i in range(120):
        (folder / f"class{i % 3}").mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(folder / f"class{i % 3}/{i:03d}.png")
    return data.load("folder", path=folder, root=tmp_path_factory.mktemp("root"))


def test_every_image_of_every_epoch_has_the_label_of_its_own_cluster(numbered):
    # an earlier code looks new clusters up in the last epoch's order: chance from the second on
    numbers = torch.from_numpy(numbered.images[:, 0, 0, 0].astype(np.int64))  # of image i
    assert not torch.equal(numbers, torch.arange(120))  # the folder's order is another one
    for epoch in range(4):
        assignments = torch.randint(7, (120,), generator=generator(epoch))
        cluster_of_number = dict(zip(numbers.tolist(), assignments.tolist(), strict=True))
        for name in ("uniform", "natural", "released"):
            order = samplers.draw(name, assignments, 120, generator(epoch))
            for images, indices in data.batches(numbered.images, 32, order):
                for image, label in zip(images, assignments[indices], strict=True):
                    assert cluster_of_number[int(image[0, 0, 0])] == label


def test_uniform_draws_are_uniform_in_the_images_that_arrive(numbered):
    assignments = torch.tensor([0] * 100 + [1] * 15 + [2] * 5)[
        torch.randperm(120, generator=generator())
    ]
    numbers = torch.from_numpy(numbered.images[:, 0, 0, 0].astype(np.int64))
    cluster_of_number = dict(zip(numbers.tolist(), assignments.tolist(), strict=True))

    def arrived(name):
        order = samplers.draw(name, assignments, 120, generator())
        pixels = [images[:, 0, 0, 0] for images, _ in data.batches(numbered.images, 32, order)]
        return np.bincount([cluster_of_number[int(number)] for number in torch.cat(pixels)])

    assert arrived("uniform").tolist() == [40, 40, 40]
    assert arrived("natural").tolist() == [100, 15, 5]
    assert arrived("released")[0] > 80  # the bug: the large cluster is as large as ever
