"""Boundaries of segments, and their precision and recall against human annotators."""

import math
from collections.abc import Sequence

import numpy as np

MAX_DISTANCE = 0.0075  # of matched pixels, as a fraction of the image diagonal


def of_labels(labels: np.ndarray) -> np.ndarray:
    """Boundaries of segments, one pixel wide: labels (h, w) of integers -> (h, w) bool.

    Pixels at the upper left of a 2x2 block of different labels, then thinned. For BSDS500 these are
    the `Boundaries` beside each `Segmentation`, pixel for pixel.
    """
    across, down = labels[:, :-1] != labels[:, 1:], labels[:-1] != labels[1:]
    edges = np.zeros(labels.shape, bool)
    edges[:-1, :-1] = across[:-1] | across[1:] | down[:, :-1] | down[:, 1:]
    edges[-1, :-1] = across[-1]
    edges[:-1, -1] = down[:, -1]
    return thin(edges)


def thin(mask: np.ndarray) -> np.ndarray:
    """Thins lines to a width of one pixel: (h, w) bool -> (h, w) bool.

    Guo and Hall 1989 with two sub-iterations, as MATLAB's bwmorph(mask, "thin", inf).
    """
    h, w = mask.shape
    padded = np.pad(mask, 1).ravel()
    # counterclockwise, starting on the right
    neighbors = np.array([1, -w - 1, -w - 2, -w - 3, -1, w + 1, w + 2, w + 3])
    pixels = np.flatnonzero(padded)
    n_unchanged = 0
    while n_unchanged < len(_IS_REMOVED):
        for is_removed in _IS_REMOVED:
            around = padded[pixels[:, None] + neighbors]  # (pixels, 8)
            removed = is_removed[np.packbits(around, axis=1, bitorder="little")[:, 0]]
            padded[pixels[removed]] = False
            pixels = pixels[~removed]
            n_unchanged = 0 if removed.any() else n_unchanged + 1
    return padded.reshape(h + 2, w + 2)[1:-1, 1:-1].copy()


def _removal_table(rotation: int) -> np.ndarray:
    """Whether a pixel is removed, for each of its 256 neighborhoods: (256,) bool.

    Bit k of a neighborhood is the k-th of `neighbors` in `thin`.
    """
    x = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool)  # (256, 8)
    odd, even, after = x[:, 0::2], x[:, 1::2], np.roll(x[:, 0::2], -1, axis=1)
    n_pieces = (~odd & (even | after)).sum(1)  # connected pieces of the neighborhood
    n_pairs = np.minimum((odd | even).sum(1), (even | after).sum(1))
    x = np.roll(x, rotation, axis=1)
    on_this_side = ~((x[:, 1] | x[:, 2] | ~x[:, 7]) & x[:, 0])
    return (n_pieces == 1) & (n_pairs >= 2) & (n_pairs <= 3) & on_this_side


_IS_REMOVED = (_removal_table(0), _removal_table(4))  # of the two sub-iterations


def counts(
    predicted: np.ndarray, ground_truths: Sequence[np.ndarray], max_distance: float = MAX_DISTANCE
) -> tuple[int, int, int, int]:
    """Pixels of the true boundaries: matched, all; of the predicted boundaries: matched, all.

    predicted (h, w), ground_truths each (h, w), bool, thin. Each annotator is matched separately:
    the first two numbers are sums over annotators; a predicted pixel counts as matched if it is by
    any. max_distance is a fraction of the diagonal. Recall is the first over the second number,
    precision the third over the fourth (Martin et al. 2004).
    """
    radius = max_distance * math.hypot(*predicted.shape)
    is_correct = np.zeros(predicted.shape, bool)
    n_recalled = n_true = 0
    for truth in ground_truths:
        is_matched, is_recalled = match(predicted, truth, radius)
        is_correct |= is_matched
        n_recalled += int(np.count_nonzero(is_recalled))
        n_true += int(np.count_nonzero(truth))
    n_correct, n_predicted = int(np.count_nonzero(is_correct)), int(np.count_nonzero(predicted))
    return n_recalled, n_true, n_correct, n_predicted


def match(a: np.ndarray, b: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Maximum one-to-one matching of the pixels of two maps: which pixels of each are matched.

    a, b (h, w) bool -> two (h, w) bool. Matched pixels are at most `radius` pixels apart; near
    pairs are preferred. The official tool minimizes the sum of distances over all maximum
    matchings: it matches as many pixels, a few of them different ones.
    """
    if np.count_nonzero(b) < np.count_nonzero(a):  # so that fewer rows remain unmatched
        return match(b, a, radius)[::-1]
    reach = int(radius)
    width = a.shape[1] + 2 * reach
    rows, index = np.flatnonzero(np.pad(a, reach)), np.full(np.pad(b, reach).size, -1, np.int32)
    columns = np.flatnonzero(np.pad(b, reach))
    index[columns] = np.arange(len(columns))
    candidates = index[rows[:, None] + _steps(radius, width)]  # (rows, steps), -1 for none
    partner = np.full(len(columns) + 1, -1)  # the last entry is for candidates of -1, never free
    partner[-1] = len(rows)
    free = np.arange(len(rows))
    for step in range(candidates.shape[1]):  # nearest first; the candidates of a step are distinct
        candidate = candidates[free, step]
        is_free = partner[candidate] < 0
        partner[candidate[is_free]] = free[is_free]
        free = free[~is_free]
    partner = _augment(free, candidates, partner[:-1])
    a_matched, b_matched = np.zeros(a.shape, bool), np.zeros(b.shape, bool)
    a_matched[a] = np.isin(np.arange(len(rows)), partner)
    b_matched[b] = partner >= 0
    return a_matched, b_matched


def _steps(radius: float, width: int) -> np.ndarray:
    """Offsets to all pixels within the radius in a flat image of this width, nearest first."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    squares = y**2 + x**2
    order = np.argsort(squares, kind="stable")[: np.count_nonzero(squares <= radius**2)]
    return (y * width + x)[order]


def _augment(free: np.ndarray, candidates: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """Matches more rows along shortest augmenting paths, until there is none left.

    free (f,): unmatched rows; candidates (n, steps): columns of each row, -1 for none; partner
    (m,): the row matched to each column or -1. Returns the new partners.
    """
    valid = candidates >= 0
    starts = [0, *np.cumsum(valid.sum(1)).tolist()]
    flat, partners = candidates[valid].tolist(), partner.tolist()
    visited = bytearray(len(partners))
    for root in free.tolist():
        queue, reached_from, column_of = [root], {}, {}
        end = None
        for row in queue:
            for column in flat[starts[row] : starts[row + 1]]:
                if visited[column]:
                    continue
                visited[column] = 1
                reached_from[column] = row
                matched_row = partners[column]
                if matched_row < 0:
                    end = column
                    break
                column_of[matched_row] = column
                queue.append(matched_row)
            if end is not None:
                break
        if end is None:
            continue  # columns of a failed search stay visited: no later path leads through them
        for column in reached_from:
            visited[column] = 0
        while end is not None:
            row = reached_from[end]
            partners[end], end = row, column_of.get(row)
    return np.array(partners, int)
