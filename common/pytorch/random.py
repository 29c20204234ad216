"""Seeded generators, so that a resumed run draws the numbers the uninterrupted run would have."""

import torch

PRIME = 1_000_003


def seeded_generator(seed: int, *counters: int) -> torch.Generator:
    """A CPU generator that depends on the seed and on counters such as epoch and batch alone."""
    for counter in counters:
        seed = seed * PRIME + counter
    return torch.Generator().manual_seed(seed % 2**63)
