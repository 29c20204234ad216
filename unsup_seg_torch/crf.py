"""The fully connected CRF of Kraehenbuehl and Koltun (2011): labels that end at edges of colour.

Its Gaussian filters over all pairs of pixels run on the permutohedral lattice of Adams, Baek and
Davis (2010), which takes a time linear in the pixels.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

# Deviations of the two kernels, pixels and gray levels, and their weights: those that the method's
# authors give out with their code.
POSITION, COLOUR, APPEARANCE_WEIGHT = 80.0, 13.0, 10.0
NEAR, SMOOTHNESS_WEIGHT = 3.0, 3.0
LEAST = 1e-6  # probability: a label that the network rules out may come back


def refine(
    probabilities: ArrayLike,
    image: np.ndarray,
    n_iterations: int = 5,
    position: float = POSITION,
    colour: float = COLOUR,
    appearance_weight: float = APPEARANCE_WEIGHT,
    near: float = NEAR,
    smoothness_weight: float = SMOOTHNESS_WEIGHT,
) -> np.ndarray:
    """Mean field: probabilities (k, h, w), image uint8 (h, w, 3) -> probabilities (k, h, w).

    Every round a pixel takes on what its like think: those of like colour within `position`, and
    those within `near` whatever their colour.
    """
    maps = torch.as_tensor(np.asarray(probabilities), dtype=torch.float32)
    k, h, w = maps.shape
    if image.shape != (h, w, 3):
        raise ValueError(f"the image is {image.shape}, the probabilities {tuple(maps.shape)}")
    ys, xs = np.indices((h, w), np.float32)
    positions = np.stack([xs, ys], -1).reshape(-1, 2)
    colours = image.reshape(-1, 3).astype(np.float32)
    appearance = Filter(np.concatenate([positions / position, colours / colour], 1))
    smoothness = Filter(positions / near)
    unary = maps.reshape(k, -1).T.clamp(min=LEAST).log()  # (n, k)
    current = unary.softmax(1)
    for _ in range(n_iterations):
        # Labels of different kind all cost the same (Potts), so that what others think is added.
        current = (
            unary
            + appearance_weight * appearance(current)
            + smoothness_weight * smoothness(current)
        ).softmax(1)
    return current.T.reshape(k, h, w).numpy()


class Filter:
    """values (n, c) -> D^-1/2 K D^-1/2 values, K_ij = exp(-|f_i - f_j|^2 / 2), D its row sums.

    Each pixel is its own neighbour too, as in the authors' code.
    """

    def __init__(self, features: np.ndarray):
        self.lattice = Lattice(features)
        ones = torch.ones(len(features), 1)
        self.scale = self.lattice(ones).clamp(min=torch.finfo(ones.dtype).tiny).rsqrt()

    def __call__(self, values: Tensor) -> Tensor:
        return self.lattice(values * self.scale) * self.scale


class Lattice:
    """Sums over all points weighted by a Gaussian of their distance: features (n, d), float.

    Space is cut into equal simplices. Every point hands its values to the d + 1 corners of its own
    (splat), corners mix with their neighbours along d + 1 directions (blur), points read back what
    their corners have (slice).
    """

    def __init__(self, features: np.ndarray):
        n, d = features.shape
        keys, weights = _corners(np.asarray(features, np.float64))
        keys -= keys.min((0, 1)) - (d + 1)  # a margin, so that no neighbour of one is another's
        places = np.cumprod([1, *(keys.max((0, 1)) + d + 2)])
        if places[-1] > 2**62 or np.prod((keys.max((0, 1)) + d + 2).astype(float)) > 2**62:
            raise ValueError("the features spread too far: divide them by larger deviations")
        numbers = (keys * places[:-1]).sum(-1)  # (n, d + 1)
        corners, index = np.unique(numbers, return_inverse=True)
        index = index.reshape(n, d + 1)
        self.n_corners = len(corners)
        self.index = torch.from_numpy(index)
        self.weights = torch.from_numpy(weights.astype(np.float32))
        # The same pairs ordered by corner: which points, with what weight, from where on.
        order = np.argsort(index.ravel(), kind="stable")
        self.points = torch.from_numpy(order // (d + 1))
        self.shares = self.weights.ravel()[torch.from_numpy(order)]
        counts = np.bincount(index.ravel(), minlength=len(corners))
        self.starts = torch.from_numpy(np.cumsum(counts) - counts)
        self.neighbours = [
            tuple(_find(corners, corners + sign * step) for sign in (-1, 1))
            for step in _directions(places[:-1])
        ]
        # Of the Gaussian's mass so much is on a corner itself, direction after direction.
        self.scale = 1 / (1 + 2.0**-d)

    def __call__(self, values: Tensor) -> Tensor:
        """(n, c) float32 -> (n, c)"""
        here = F.embedding_bag(
            self.points, values, self.starts, mode="sum", per_sample_weights=self.shares
        )
        here = torch.cat([here, here.new_zeros(1, values.shape[1])])  # who has no neighbour
        for before, after in self.neighbours:
            mixed = here[before].add_(here[after])
            here[:-1].add_(mixed, alpha=0.5)
        return F.embedding_bag(
            self.index, here, mode="sum", per_sample_weights=self.weights * self.scale
        )


def _corners(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every point's simplex: keys (n, d + 1, d) int64, barycentric weights (n, d + 1)."""
    n, d = features.shape
    # Into the plane of d + 1 coordinates that sum to 0, where the lattice lies, with the deviation
    # that splat, blur and slice have together.
    steps = np.arange(1, d + 1)
    scaled = features * (np.sqrt(2 / 3) * (d + 1) / np.sqrt(steps * (steps + 1)))
    later = np.cumsum(scaled[:, ::-1], 1)[:, ::-1]  # sums of this coordinate and those after it
    raised = np.zeros((n, d + 1))
    raised[:, :-1] += later
    raised[:, 1:] -= steps * scaled
    # The nearest lattice point of remainder 0, and how the coordinates' distances to it rank.
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
    """How the number of a corner changes with one step along each of the d + 1 directions."""
    d = len(places)
    back = -int(places.sum())
    return [back + (d + 1) * int(place) for place in places] + [back]


def _find(corners: np.ndarray, wanted: np.ndarray) -> Tensor:
    """Where the wanted numbers stand among the sorted corners; behind the last if they do not."""
    at = np.searchsorted(corners, wanted)
    at[at == len(corners)] = 0
    return torch.from_numpy(np.where(corners[at] == wanted, at, len(corners)))
