import torch

from common.pytorch.random import seeded_generator


def draw(*args):
    return torch.rand(3, generator=seeded_generator(*args)).tolist()


def test_generator_depends_on_seed_and_counters_only():
    torch.manual_seed(0)
    first = draw(1, 2, 3)
    torch.manual_seed(1)
    assert draw(1, 2, 3) == first
    others = [draw(1), draw(2), draw(1, 2), draw(2, 1), draw(1, 3, 2), draw(2, 2, 3)]
    assert len({tuple(values) for values in [first, *others]}) == 7


def test_seeds_and_counters_may_be_large_or_0():
    assert draw(2**62, 2**40, 5) != draw(2**62, 2**40, 6)
    assert draw(0, 0) == draw(0) == draw(0, 0, 0)
