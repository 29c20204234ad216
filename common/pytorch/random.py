"""Seeded random generators, with which a resumed run draws the same numbers as without a stop."""

import torch

PRIME = 1_000_003


def seeded_generator(seed: int, *counters: int) -> torch.Generator:
    """A CPU generator that depends only on the seed and counters such as epoch and batch."""
    for counter in counters:
        seed = seed * PRIME + counter
    return torch.Generator().manual_seed(seed % 2**63)
