"""Nearest neighbors with labels, ranked so that the order of the rows does not matter.

Keys at the same distance have no order: what `common.metrics` computes from a ranking is the
expected value over a random one (McSherry and Najork 2008).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """The k keys nearest to each of b queries, as expected values over a random order of ties."""

    labels: np.ndarray  # (b,) of the queries
    relevant: np.ndarray  # (b, k) probability that the key at this rank has the query's label
    first: np.ndarray  # (b, k) the same, given that no key of the tie at a lower rank has it
    excess: np.ndarray  # (b, k) relevant keys up to a rank with a relevant one, minus the expected

    def precisions(self) -> np.ndarray:
        """Expected product of relevance and precision at each rank: (b, k)."""
        n_relevant = self.relevant.cumsum(axis=1) + self.excess
        return self.relevant * n_relevant / np.arange(1, self.relevant.shape[1] + 1)

    def hits(self, k_max: int) -> np.ndarray:
        """Expected number of queries with a relevant key among k, for k = 1 to k_max: (k_max,).

        A k above the number of keys means all of them.
        """
        hits = (1 - (1 - self.first[:, :k_max]).cumprod(axis=1)).sum(axis=0)
        return np.pad(hits, (0, k_max - len(hits)), "edge")


def rankings(
    embeddings: np.ndarray,
    labels: np.ndarray,
    k: int,
    gallery: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[Ranking]:
    """The min(k, m) keys nearest to each item, in blocks of about 2**22 distances.

    embeddings (n, d), labels (n,); gallery: m keys (m, d) and their labels (m,); None: the other
    items. Rows are sorted first, so that rounding does not depend on their order.
    """
    embeddings, labels = _sort_rows(embeddings, labels)
    keys, key_labels = (embeddings, labels) if gallery is None else _sort_rows(*gallery)
    n_keys = len(keys) - (gallery is None)
    k = min(k, n_keys)
    center = keys.mean(axis=0)  # |x|^2 - 2xy cancels far from the origin
    spread = np.ldexp(1.0, np.frexp(np.abs(keys - center).max(initial=0))[1])
    center = (np.rint(center / spread) * spread).astype(keys.dtype)  # integers remain integers
    embeddings, keys = embeddings - center, keys - center
    is_new = np.append(True, (keys[1:] != keys[:-1]).any(axis=1))
    distinct, copies = keys[is_new], is_new.cumsum() - 1  # equal keys: distances equal to the bit
    squares = (distinct**2).sum(axis=1)
    largest = max(squares.max(), (embeddings**2).sum(axis=1).max())
    tolerance = 4 * np.finfo(keys.dtype).eps * largest
    n_blocks = -(-len(embeddings) * len(keys) // 2**22)
    for rows in np.array_split(np.arange(len(embeddings)), n_blocks):
        # (b, m) squared distances without the |x|^2 of each row, which does not change the order
        distances = squares - 2 * (embeddings[rows] @ distinct.T)
        if len(distinct) < len(keys):
            distances = distances[:, copies]
        if gallery is None:
            distances[np.arange(len(rows)), rows] = np.inf
        yield from _rank(distances, labels[rows], key_labels, k, n_keys, tolerance)


def _rank(
    distances: np.ndarray,
    labels: np.ndarray,
    key_labels: np.ndarray,
    k: int,
    n_keys: int,
    tolerance: float,
    n_sorted: int = 0,
) -> Iterator[Ranking]:
    """Rankings by distances (b, m), of which n_keys are finite; ties are at most `tolerance` apart.

    n_sorted keys, at least k + 1, are sorted first; more of them for the queries that have a tie
    beyond these.
    """
    n = min(max(n_sorted, k + 1), n_keys)
    nearest = np.argpartition(distances, n - 1, axis=1)[:, :n]
    values = np.take_along_axis(distances, nearest, axis=1)
    order = values.argsort(axis=1)
    nearest = np.take_along_axis(nearest, order, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    is_tied = np.diff(values, axis=1) <= tolerance  # (b, n - 1) with the next one
    is_cut = is_tied[:, k - 1 :].all(axis=1) & (n < n_keys)
    if is_cut.any():
        more = distances[is_cut], labels[is_cut], key_labels, k, n_keys, tolerance, 8 * n
        yield from _rank(*more)
        labels, nearest, is_tied = labels[~is_cut], nearest[~is_cut], is_tied[~is_cut]
    same = key_labels[nearest] == labels[:, None]  # (b, n)
    relevant = same[:, :k].astype(np.float64)
    first, excess = relevant.copy(), np.zeros_like(relevant)
    before = np.pad(is_tied, ((0, 0), (1, 0)))  # with the one before
    row, rank = (before | np.pad(is_tied, ((0, 0), (0, 1)))).nonzero()
    tie = (~before[row, rank]).cumsum() - 1  # index of the tie, for each key in one
    starts = rank[~before[row, rank]]
    i = rank - starts[tie]  # index in the tie
    size = np.bincount(tie)[tie]
    n_same = np.bincount(tie, same[row, rank])[tie]
    kept = rank < k
    at, i, size, n_same = (row[kept], rank[kept]), i[kept], size[kept], n_same[kept]
    relevant[at] = n_same / size
    first[at] = np.minimum(n_same / (size - i), 1)
    excess[at] = 1 + i * (n_same - 1) / (size - 1) - (i + 1) * n_same / size
    yield Ranking(labels, relevant, first, excess)


def _sort_rows(embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in an order that depends on their values only, equal rows together."""
    by_label = labels.argsort(kind="stable")
    embeddings, labels = embeddings[by_label] + 0, labels[by_label]  # + 0: no negative zeros
    row_bytes = np.dtype((np.void, embeddings.dtype.itemsize * embeddings.shape[1]))
    order = np.ascontiguousarray(embeddings).view(row_bytes).ravel().argsort(kind="stable")
    return embeddings[order], labels[order]
