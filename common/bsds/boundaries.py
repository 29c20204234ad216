"""Boundaries of segments, and which of them agree with a human's: precision and recall."""

import math
from collections.abc import Sequence

import numpy as np

MAX_DISTANCE = 0.0075  # of a match, as a share of the picture's diagonal


def of_labels(labels: np.ndarray) -> np.ndarray:
    """Where segments meet, one pixel wide: (h, w) of integers -> (h, w) bool.

    A pixel is on it if it, the one below, the one to the right and the one between these differ.
    On BSDS500 this is the `Boundaries` beside each `Segmentation`, pixel for pixel.
    """
    across, down = labels[:, :-1] != labels[:, 1:], labels[:-1] != labels[1:]
    edges = np.zeros(labels.shape, bool)
    edges[:-1, :-1] = across[:-1] | across[1:] | down[:, :-1] | down[:, 1:]
    edges[-1, :-1] = across[-1]
    edges[:-1, -1] = down[:, -1]
    return thin(edges)


def thin(mask: np.ndarray) -> np.ndarray:
    """Takes pixels off both sides of lines until they are one wide: (h, w) bool -> (h, w) bool.

    Guo and Hall 1989, two half-steps, as MATLAB's bwmorph(mask, "thin", inf).
    """
    h, w = mask.shape
    padded = np.pad(mask, 1).ravel()
    steps = np.array(
        [1, -w - 1, -w - 2, -w - 3, -1, w + 1, w + 2, w + 3]
    )  # from the right, upwards
    pixels = np.flatnonzero(padded)
    unchanged = 0
    while unchanged < len(_REMOVED):
        for removed in _REMOVED:
            near = np.packbits(padded[pixels[:, None] + steps], axis=1, bitorder="little")[:, 0]
            gone = removed[near]
            padded[pixels[gone]] = False
            pixels = pixels[~gone]
            unchanged = 0 if gone.any() else unchanged + 1
    return padded.reshape(h + 2, w + 2)[1:-1, 1:-1].copy()


def _removed(turn: int) -> np.ndarray:
    """For each of the 256 neighbourhoods, bit k the k-th of `steps`, whether its pixel goes."""
    x = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool)  # (256, 8)
    odd, even, after = x[:, 0::2], x[:, 1::2], np.roll(x[:, 0::2], -1, axis=1)
    n_lines = (~odd & (even | after)).sum(1)  # that meet here
    n_pairs = np.minimum((odd | even).sum(1), (even | after).sum(1))
    x = np.roll(x, turn, axis=1)
    on_its_side = ~((x[:, 1] | x[:, 2] | ~x[:, 7]) & x[:, 0])
    return (n_lines == 1) & (n_pairs >= 2) & (n_pairs <= 3) & on_its_side


_REMOVED = (_removed(0), _removed(4))


def counts(
    predicted: np.ndarray, truths: Sequence[np.ndarray], max_distance: float = MAX_DISTANCE
) -> tuple[int, int, int, int]:
    """True pixels that are found, true pixels, predicted pixels that are right, predicted pixels.

    predicted (h, w), truths each (h, w), bool, thin. Each annotator is matched apart and the first
    two are sums over them; a predicted pixel is right if it has a match with any. max_distance is a
    share of the diagonal. Martin et al. 2004; recall is the first over the second, precision the
    third over the fourth.
    """
    radius = max_distance * math.hypot(*predicted.shape)
    right = np.zeros(predicted.shape, bool)
    n_found = n_true = 0
    for truth in truths:
        matched, found = match(predicted, truth, radius)
        right |= matched
        n_found += np.count_nonzero(found)
        n_true += np.count_nonzero(truth)
    return n_found, n_true, np.count_nonzero(right), np.count_nonzero(predicted)


def match(a: np.ndarray, b: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs as many pixels of two maps as can be, one to one: which of each map have a partner.

    a, b (h, w) bool -> two (h, w) bool; partners are at most `radius` pixels apart, and near ones
    are preferred. The official tool takes the least sum of distances among all such pairings, which
    finds as many pixels and differs in a few of those it chooses.
    """
    if np.count_nonzero(b) < np.count_nonzero(a):  # fewer are left without a partner
        return match(b, a, radius)[::-1]
    reach = int(radius)
    width = a.shape[1] + 2 * reach
    pixels, number = np.flatnonzero(np.pad(a, reach)), np.full(np.pad(b, reach).size, -1, np.int32)
    others = np.flatnonzero(np.pad(b, reach))
    number[others] = np.arange(len(others))
    near = number[pixels[:, None] + _steps(radius, width)]  # (pixels, steps), -1 for none
    partner = np.full(len(others) + 1, -1)  # the last one takes what `near` has none of
    partner[-1] = len(pixels)
    free = np.arange(len(pixels))
    for step in range(near.shape[1]):  # nearest first; within a step no two want the same
        wanted = near[free, step]
        taken = partner[wanted] < 0
        partner[wanted[taken]] = free[taken]
        free = free[~taken]
    partner = _lengthen(free, near, partner[:-1])
    matched, found = np.zeros(a.shape, bool), np.zeros(b.shape, bool)
    matched[a] = np.isin(np.arange(len(pixels)), partner)
    found[b] = partner >= 0
    return matched, found


def _steps(radius: float, width: int) -> np.ndarray:
    """To all pixels within the radius in a picture of that width, nearest first."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    squares = y**2 + x**2
    order = np.argsort(squares, kind="stable")[: np.count_nonzero(squares <= radius**2)]
    return (y * width + x)[order]


def _lengthen(free: np.ndarray, near: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Gives partners to more rows, along shortest alternating paths, until no path is left.

    free (f,) rows of near (n, steps), -1 for none; partner (m,) a row each or -1, and again after.
    """
    there = near >= 0
    starts = [0, *np.cumsum(there.sum(1)).tolist()]
    flat, partners = near[there].tolist(), partner.tolist()
    seen = bytearray(len(partners))
    for root in free.tolist():
        queue, row_before, left_for = [root], {}, {}
        end = None
        for row in queue:
            for other in flat[starts[row] : starts[row + 1]]:
                if seen[other]:
                    continue
                seen[other] = 1
                row_before[other] = row
                holder = partners[other]
                if holder < 0:
                    end = other
                    break
                left_for[holder] = other
                queue.append(holder)
            if end is not None:
                break
        if end is None:
            continue  # what a search in vain has seen stays seen: no later one gets further there
        for other in row_before:
            seen[other] = 0
        while end is not None:
            row = row_before[end]
            partners[end], end = row, left_for.get(row)
    return np.array(partners, int)
