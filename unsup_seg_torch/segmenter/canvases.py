"""A set that is always there: handwritten digits of scikit-learn on gray canvases, with labels."""

import functools
from dataclasses import dataclass, field

import numpy as np

SIDE, SCALE, N_DIGITS = 64, 3, 3  # of a canvas, pixels of a digit's pixel, digits on it
N_CANVASES = {"train": 4800, "val": 60}
IGNORE = 255
INK = 5  # of 16, from which on a pixel of a digit is one


@dataclass(frozen=True)
class Canvases:
    """As `segmentations.Segmentations`; class 0 is the background, 1 + d a digit.

    Digits of train and val are different ones. The border pixels of ink, which are neither, are
    ignored.
    """

    split: str = "train"
    n_classes: int = 11
    ignore: int = IGNORE
    classes: list[str] = field(default_factory=lambda: ["ground", *"0123456789"])

    def __len__(self) -> int:
        return N_CANVASES[self.split]

    @property
    def paths(self) -> list[str]:
        return [f"digits/{self.split}/{i:03d}" for i in range(len(self))]

    def image(self, i: int) -> np.ndarray:
        """uint8 (h, w, 3)"""
        return self._draw(i)[0]

    def ground_truths(self, i: int) -> list[np.ndarray]:
        """One int64 (h, w)."""
        return [self._draw(i)[1]]

    def _draw(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        inks, targets = _digits()
        known = np.arange(len(inks)) % 5 != 0
        known = np.flatnonzero(known if self.split == "train" else ~known)
        random = np.random.default_rng([i, self.split == "train"])
        image = np.full((SIDE, SIDE, 3), random.integers(0, 120, 3), np.float64)
        image += random.normal(0, 8, image.shape)
        labels = np.zeros((SIDE, SIDE), np.int64)
        size = 8 * SCALE
        for chosen in random.choice(known, N_DIGITS, replace=False):
            y, x = random.integers(0, SIDE - size + 1, 2)
            ink = inks[chosen].repeat(SCALE, 0).repeat(SCALE, 1)
            place = np.s_[y : y + size, x : x + size]
            share = ink[..., None] / 16
            image[place] += share * (random.integers(180, 256, 3) - image[place])
            there = labels[place]
            there[(ink > 0) & (ink < INK)] = IGNORE
            there[ink >= INK] = 1 + targets[chosen]
        return np.rint(np.clip(image, 0, 255)).astype(np.uint8), labels


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target
