"""The fully connected CRF of Kraehenbuehl and Koltun (2011), which aligns labels with color edges.

Its Gaussian filters over all pairs of pixels run on the permutohedral lattice of Adams, Baek and
Davis (2010), in time linear in the number of pixels.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

# Standard deviations of the two kernels, in pixels and gray levels, and their weights: the defaults
# of the authors' code.
POSITION, COLOR, APPEARANCE_WEIGHT = 80.0, 13.0, 10.0
SMOOTHNESS_POSITION, SMOOTHNESS_WEIGHT = 3.0, 3.0
MIN_PROBABILITY = 1e-6  # so that a label that the network rules out can come back


def refine(
    probabilities: ArrayLike,
    image: np.ndarray,
    n_iterations: int = 5,
    position: float = POSITION,
    color: float = COLOR,
    appearance_weight: float = APPEARANCE_WEIGHT,
    smoothness_position: float = SMOOTHNESS_POSITION,
    smoothness_weight: float = SMOOTHNESS_WEIGHT,
) -> np.ndarray:
    """Mean-field inference: probabilities (k, h, w), image uint8 (h, w, 3) -> probabilities.

    Each iteration passes messages between pixels of similar color within about `position` pixels,
    and between all pixels within about `smoothness_position`.
    """
    maps = torch.as_tensor(np.asarray(probabilities), dtype=torch.float32)
    k, h, w = maps.shape
    if image.shape != (h, w, 3):
        raise ValueError(f"the image is {image.shape}, the probabilities {tuple(maps.shape)}")
    ys, xs = np.indices((h, w), np.float32)
    positions = np.stack([xs, ys], -1).reshape(-1, 2)
    colors = image.reshape(-1, 3).astype(np.float32)
    appearance = Filter(np.concatenate([positions / position, colors / color], 1))
    smoothness = Filter(positions / smoothness_position)
    unary = maps.reshape(k, -1).T.clamp(min=MIN_PROBABILITY).log()  # (n, k)
    current = unary.softmax(1)
    for _ in range(n_iterations):
        # Potts model: every pair of different labels costs the same, so that messages are added.
        current = (
            unary
            + appearance_weight * appearance(current)
            + smoothness_weight * smoothness(current)
        ).softmax(1)
    return current.T.reshape(k, h, w).numpy()


class Filter:
    """values (n, c) -> D^-1/2 K D^-1/2 values, K_ij = exp(-|f_i - f_j|^2 / 2), D its row sums.

    Includes i = j, as in the authors' code.
    """

    def __init__(self, features: np.ndarray):
        self.lattice = Lattice(features)
        ones = torch.ones(len(features), 1)
        self.scale = self.lattice(ones).clamp(min=torch.finfo(ones.dtype).tiny).rsqrt()

    def __call__(self, values: Tensor) -> Tensor:
        return self.lattice(values * self.scale) * self.scale


class Lattice:
    """Gaussian-weighted sums over all points, for features (n, d), on the permutohedral lattice.

    Space is divided into simplices of one shape. Each point distributes its values to the d + 1
    vertices of its simplex (splat), vertices are blurred with their neighbors along d + 1
    directions (blur), and points interpolate the values of their vertices (slice).
    """

    def __init__(self, features: np.ndarray):
        n, d = features.shape
        keys, weights = _vertices(np.asarray(features, np.float64))
        keys -= keys.min((0, 1)) - (d + 1)  # a margin, so that numbers of neighbors are unambiguous
        places = np.cumprod([1, *(keys.max((0, 1)) + d + 2)])
        if places[-1] > 2**62 or np.prod((keys.max((0, 1)) + d + 2).astype(float)) > 2**62:
            raise ValueError(
                "the features have too large a range: divide them by larger standard deviations"
            )
        numbers = (keys * places[:-1]).sum(-1)  # (n, d + 1)
        vertices, index = np.unique(numbers, return_inverse=True)
        index = index.reshape(n, d + 1)
        self.n_vertices = len(vertices)
        self.index = torch.from_numpy(index)
        self.weights = torch.from_numpy(weights.astype(np.float32))
        # The same pairs ordered by vertex: points, weights, and where each vertex starts.
        order = np.argsort(index.ravel(), kind="stable")
        self.points = torch.from_numpy(order // (d + 1))
        self.shares = self.weights.ravel()[torch.from_numpy(order)]
        counts = np.bincount(index.ravel(), minlength=len(vertices))
        self.starts = torch.from_numpy(np.cumsum(counts) - counts)
        self.neighbors = [
            tuple(_find(vertices, vertices + sign * step) for sign in (-1, 1))
            for step in _directions(places[:-1])
        ]
        # normalizes the blur along all directions
        self.scale = 1 / (1 + 2.0**-d)

    def __call__(self, values: Tensor) -> Tensor:
        """(n, c) float32 -> (n, c)"""
        at_vertices = F.embedding_bag(
            self.points, values, self.starts, mode="sum", per_sample_weights=self.shares
        )
        # one more row, of zeros, for missing neighbors
        at_vertices = torch.cat([at_vertices, at_vertices.new_zeros(1, values.shape[1])])
        for before, after in self.neighbors:
            blurred = at_vertices[before].add_(at_vertices[after])
            at_vertices[:-1].add_(blurred, alpha=0.5)
        return F.embedding_bag(
            self.index, at_vertices, mode="sum", per_sample_weights=self.weights * self.scale
        )


def _vertices(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each point's simplex: keys of its vertices (n, d + 1, d), barycentric weights (n, d + 1)."""
    n, d = features.shape
    # Into the hyperplane of d + 1 coordinates that sum to 0, which contains the lattice, scaled by
    # the standard deviation of splat, blur and slice together.
    steps = np.arange(1, d + 1)
    scaled = features * (np.sqrt(2 / 3) * (d + 1) / np.sqrt(steps * (steps + 1)))
    later = np.cumsum(scaled[:, ::-1], 1)[:, ::-1]  # sums of this and all later coordinates
    raised = np.zeros((n, d + 1))
    raised[:, :-1] += later
    raised[:, 1:] -= steps * scaled
    # The nearest lattice point of remainder 0, and the ranks of the coordinates' distances to it.
    nearest = np.rint(raised / (d + 1))
    excess = nearest.sum(1, keepdims=True).astype(np.int64)
    nearest *= d + 1
    rank = np.argsort(np.argsort(nearest - raised, axis=1, kind="stable"), axis=1) + excess
    wrapped = (rank < 0).astype(np.int64) - (rank > d)
    rank += wrapped * (d + 1)
    nearest += wrapped * (d + 1)
    ordered = np.zeros((n, d + 1))  # the distances, from the largest to the smallest
    np.put_along_axis(ordered, rank, (raised - nearest) / (d + 1), axis=1)
    weights = np.empty((n, d + 1))
    weights[:, 0] = 1 + ordered[:, d] - ordered[:, 0]
    weights[:, 1:] = (ordered[:, :-1] - ordered[:, 1:])[:, ::-1]
    remainders = np.arange(d + 1)[:, None]
    moves = remainders - (d + 1) * (np.arange(d + 1) > d - remainders)  # [remainder, rank]
    keys = nearest[:, None, :d].astype(np.int64) + moves[:, rank[:, :d]].transpose(1, 0, 2)
    return keys, weights


def _directions(places: np.ndarray) -> list[int]:
    """How the number of a vertex changes with one step along each of the d + 1 directions."""
    d = len(places)
    back = -int(places.sum())
    return [back + (d + 1) * int(place) for place in places] + [back]


def _find(vertices: np.ndarray, numbers: np.ndarray) -> Tensor:
    """Indices of numbers in the sorted vertices; len(vertices) for those that are missing."""
    index = np.searchsorted(vertices, numbers)
    index[index == len(vertices)] = 0
    return torch.from_numpy(np.where(vertices[index] == numbers, index, len(vertices)))
