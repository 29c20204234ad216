from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from deepcluster_torch.config import Sampler
from deepcluster_torch.data import folder_cache, samplers
from deepcluster_torch.data.batches import batches

NAMES = get_args(Sampler)
SKEWED = torch.tensor([0] * 700 + [1] * 200 + [2] * 60 + [4] * 30 + [5] * 9 + [7])  # 3 and 6 empty
SKEWED = SKEWED[torch.randperm(1000, generator=torch.Generator().manual_seed(9))]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", [1000, 1003, 250, 6, 5])
def test_uniform_draws_non_empty_clusters_equally_often(n):
    drawn = samplers.uniform(SKEWED, n, generator())
    assert len(drawn) == n
    counts = torch.bincount(SKEWED[drawn], minlength=8)[[0, 1, 2, 4, 5, 7]]
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", ["uniform", "natural"])
def test_no_image_of_a_cluster_repeats_before_all_were_drawn(name):
    drawn = samplers.draw(name, SKEWED, 1000, generator())
    counts = torch.bincount(drawn, minlength=1000)
    for cluster in SKEWED.unique():
        in_cluster = counts[SKEWED == cluster]
        assert in_cluster.max() - in_cluster.min() <= 1


def test_natural_draws_every_image_equally_often():
    drawn = samplers.natural(SKEWED, 2000, generator())
    assert torch.equal(torch.bincount(drawn), torch.full((1000,), 2))


def test_released_draws_clusters_in_proportion_to_their_size():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(20, 0.5))
    assignments = torch.from_numpy(random.choice(20, 10_000, p=probabilities))
    sizes = torch.bincount(assignments, minlength=20).double()
    drawn = samplers.released(assignments, 10_000, generator())
    counts = torch.bincount(assignments[drawn], minlength=20).double()
    assert np.corrcoef(sizes, counts)[0, 1] > 0.9
    uniform = torch.bincount(assignments[samplers.uniform(assignments, 10_000, generator())])
    assert uniform[uniform > 0].double().std() < 1 < 100 < counts.std()


def test_released_equals_the_authors_two_lists_of_indices():
    assignments = torch.tensor([1, 0, 1, 0, 0, 2])
    sorted_by_cluster = [1, 3, 4, 0, 2, 5]
    intended = samplers.uniform(assignments, 9, generator(3)).tolist()
    drawn = samplers.released(assignments, 9, generator(3)).tolist()
    assert drawn == [sorted_by_cluster[i] for i in intended]


@pytest.mark.parametrize("name", NAMES)
def test_draws_depend_on_the_generator_alone_and_are_shuffled(name):
    first = samplers.draw(name, SKEWED, 900, generator(1))
    torch.rand(3)
    assert torch.equal(samplers.draw(name, SKEWED, 900, generator(1)), first)
    assert not torch.equal(samplers.draw(name, SKEWED, 900, generator(2)), first)
    halves = SKEWED[first].double().split(450)
    assert abs(halves[0].mean() - halves[1].mean()) < 0.5  # not sorted by cluster


def test_one_cluster_and_one_image_are_enough():
    assert samplers.uniform(torch.zeros(5, dtype=torch.long), 5, generator()).sort().values.tolist()
    assert samplers.released(torch.tensor([3]), 4, generator()).tolist() == [0] * 4


# ---- with a real dataset: a folder of images whose pixels are their number


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbered")
    for i in range(120):
        (folder / f"class{i % 3}").mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(folder / f"class{i % 3}/{i:03d}.png")
    return folder_cache.load("folder", path=folder, root=tmp_path_factory.mktemp("root"))


def test_every_image_of_every_epoch_has_the_label_of_its_cluster(numbered):
    # earlier code looked new clusters up in the last epoch's order: random from the second epoch on
    numbers = torch.from_numpy(numbered.images[:, 0, 0, 0].astype(np.int64))  # of image i
    assert not torch.equal(numbers, torch.arange(120))  # the folder's order is another one
    for epoch in range(4):
        assignments = torch.randint(7, (120,), generator=generator(epoch))
        cluster_of_number = dict(zip(numbers.tolist(), assignments.tolist(), strict=True))
        for name in NAMES:
            order = samplers.draw(name, assignments, 120, generator(epoch))
            for images, indices in batches(numbered.images, 32, order):
                for image, label in zip(images, assignments[indices], strict=True):
                    assert cluster_of_number[int(image[0, 0, 0])] == label


def test_uniform_draws_are_uniform_in_the_batches(numbered):
    assignments = torch.tensor([0] * 100 + [1] * 15 + [2] * 5)[
        torch.randperm(120, generator=generator())
    ]
    numbers = torch.from_numpy(numbered.images[:, 0, 0, 0].astype(np.int64))
    cluster_of_number = dict(zip(numbers.tolist(), assignments.tolist(), strict=True))

    def counts(name):
        order = samplers.draw(name, assignments, 120, generator())
        pixels = [images[:, 0, 0, 0] for images, _ in batches(numbered.images, 32, order)]
        return np.bincount([cluster_of_number[int(number)] for number in torch.cat(pixels)])

    assert counts("uniform").tolist() == [40, 40, 40]
    assert counts("natural").tolist() == [100, 15, 5]
    assert counts("released")[0] > 80  # the bug: the large cluster dominates
