"""A dataset with nothing to download: handwritten digits composited on gray, with label maps."""

import functools
from dataclasses import dataclass, field

import numpy as np

SIDE, SCALE, N_DIGITS = 64, 3, 3  # pixels of an image, enlargement and number of the digits on it
N_IMAGES = {"train": 4800, "val": 60}
IGNORE = 255
MIN_INK = 5  # of 16, from which on a pixel belongs to the digit


@dataclass(frozen=True)
class SyntheticDigits:
    """Has the interface of `common.datasets.segmentations.Segmentations`.

    Class 0 is the background, 1 + d the digit d. train and val have different digits. Pixels with
    little ink, at the border of a digit, are ignored.
    """

    split: str = "train"
    n_classes: int = 11
    ignore: int = IGNORE
    classes: list[str] = field(default_factory=lambda: ["ground", *"0123456789"])

    def __len__(self) -> int:
        return N_IMAGES[self.split]

    @property
    def paths(self) -> list[str]:
        return [f"digits/{self.split}/{i:03d}" for i in range(len(self))]

    def image(self, i: int) -> np.ndarray:
        """uint8 (h, w, 3)"""
        return self._draw(i)[0]

    def ground_truths(self, i: int) -> list[np.ndarray]:
        """One label map int64 (h, w)."""
        return [self._draw(i)[1]]

    def _draw(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        inks, targets = _digits()
        is_train = np.arange(len(inks)) % 5 != 0
        usable = np.flatnonzero(is_train if self.split == "train" else ~is_train)
        rng = np.random.default_rng([i, self.split == "train"])
        image = np.full((SIDE, SIDE, 3), rng.integers(0, 120, 3), np.float64)
        image += rng.normal(0, 8, image.shape)
        labels = np.zeros((SIDE, SIDE), np.int64)
        size = 8 * SCALE
        for chosen in rng.choice(usable, N_DIGITS, replace=False):
            y, x = rng.integers(0, SIDE - size + 1, 2)
            ink = inks[chosen].repeat(SCALE, 0).repeat(SCALE, 1)
            box = np.s_[y : y + size, x : x + size]
            opacity = ink[..., None] / 16
            image[box] += opacity * (rng.integers(180, 256, 3) - image[box])
            labels[box][(ink > 0) & (ink < MIN_INK)] = IGNORE
            labels[box][ink >= MIN_INK] = 1 + targets[chosen]
        return np.rint(np.clip(image, 0, 255)).astype(np.uint8), labels


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target
