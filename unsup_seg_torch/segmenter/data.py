"""Labelled images of any sizes, and the paper's augmentation of batches of them."""

import logging
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from common import UserError, images
from common.datasets import folders, segmentations
from unsup_seg_torch import data, views
from unsup_seg_torch.segmenter import config
from unsup_seg_torch.segmenter.canvases import N_CANVASES, Canvases

log = logging.getLogger("unsup_seg_torch.segmenter.data")

IGNORE = 255  # the label of pixels that count for nothing, here for all data sets
CACHE = 2 << 30  # bytes of images and labels that are kept once they are decoded
DECODED = 5000  # images up to which all are decoded before the training begins
N_CROPS = 10  # tries at a crop that no class fills
# Strengths of the changes of colour, factors and a share of the colour circle: those of mmseg.
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32 / 255, 0.5, 0.5, 18 / 360


class Scenes:
    """Images and labels that a config names: uint8 (h, w, 3) and uint8 (h, w), ignored is 255.

    Read when asked for, reduced to dataset.short_side, and kept while there is room. Raises
    UserError for what is missing; of several, files that cannot be read are skipped by name.
    """

    def __init__(self, cfg: config.Dataset, split: str):
        self.cfg = cfg
        self.found = _load(cfg, split)
        if self.found.n_classes is None or self.found.n_classes > 255:
            raise UserError(f"{cfg.name} has no classes of pixels: Segmenter learns from those")
        self.n_classes: int = self.found.n_classes
        self.classes = self.found.classes or [str(k) for k in range(self.n_classes)]
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._bytes = 0
        self.indices = list(range(len(self.found)))[: cfg.n_images]
        self._skip_bad()
        if isinstance(self.found, Canvases):
            self.checksum = f"digits {split}"
        else:
            files = [self.found.ground_truth_paths[i] for i in self.indices]
            self.checksum = folders.checksum([(path, (path.name,)) for path in files])

    def _skip_bad(self) -> None:
        """Leaves out what cannot be decoded; of a large set that shows when its turn comes."""
        if len(self.indices) > DECODED:
            return

        def why(i: int) -> str | None:
            try:
                self._read(i)
                return None
            except UserError as error:
                return str(error)

        with ThreadPool(4) as pool:
            reasons = list(zip(self.indices, pool.map(why, self.indices), strict=True))
        skipped = [(self.found.paths[i], reason) for i, reason in reasons if reason]
        self.indices = [i for i, reason in reasons if not reason]
        name = Path(self.cfg.path or self.cfg.name)
        folders.check_skipped(skipped, len(self.indices), self.cfg.max_bad, name)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def paths(self) -> list[str]:
        return [self.found.paths[i] for i in self.indices]

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self._read(self.indices[i])

    def full(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """As large as they are."""
        image = self.found.image(self.indices[i])
        labels = self.found.ground_truths(self.indices[i])[0]
        return image, np.where(labels == self.found.ignore, IGNORE, labels).astype(np.uint8)

    def _read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        if i in self._kept:
            return self._kept[i]
        image, labels = self.found.image(i), self.found.ground_truths(i)[0]
        labels = np.where(labels == self.found.ignore, IGNORE, labels).astype(np.uint8)
        image, labels = reduce(image, labels, self.cfg.short_side)
        if self._bytes + image.nbytes + labels.nbytes <= CACHE:
            self._kept[i] = image, labels
            self._bytes += image.nbytes + labels.nbytes
        return image, labels


def _load(cfg: config.Dataset, split: str) -> segmentations.Segmentations | Canvases:
    if cfg.name == "digits" and not cfg.path:
        if split not in N_CANVASES:
            expected = " or ".join(N_CANVASES)
            raise UserError(f"dataset.split of digits is {split!r}, expected {expected}")
        return Canvases(split)
    return segmentations.load(cfg.name, split, cfg.root, cfg.path)


def short(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """(h, w) in the same proportions, the shorter side as said."""
    if side is None:
        return size
    h, w = size
    return (side, max(round(w * side / h), 1)) if h <= w else (max(round(h * side / w), 1), side)


def reduce(
    image: np.ndarray, labels: np.ndarray, side: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Both with a shorter side as said; labels are those of the nearest pixels."""
    size = short(image.shape[:2], side)
    if size == image.shape[:2]:
        return image, labels
    return images.resize(image, size), data.nearest(labels, size)


def n_batches(cfg: config.Config, n: int) -> int:
    """Of an epoch over n images."""
    return -(-n // cfg.training.batch_size)


def batches(
    scenes: Scenes, cfg: config.Config, epoch: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch from batch `first` on: images (b, 3, h, w) in [0, 1], labels (b, h, w) int64.

    What they are depends on seed, epoch and number of the batch alone, so that a resumed epoch goes
    on where it stopped.
    """
    n, size = len(scenes), cfg.training.batch_size
    order = _generator(cfg, epoch, 0)
    chosen = torch.randperm(n, generator=order).tolist()
    for batch in range(first, n_batches(cfg, n)):
        picked = [scenes[i] for i in chosen[batch * size : (batch + 1) * size]]
        yield augment(picked, cfg, _generator(cfg, epoch, batch + 1))


def _generator(cfg: config.Config, epoch: int, batch: int) -> Generator:
    seed = (cfg.training.seed * 1_000_003 + epoch) * 1_000_003 + batch
    return Generator().manual_seed(seed % 2**63)


def augment(
    picked: list[tuple[np.ndarray, np.ndarray]], cfg: config.Config, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Random scale, crop, mirror and colours of each (section 4.1, after mmseg).

    Labels are those of the nearest pixels; what is beyond the image is black and ignored.
    """
    training, (height, width) = cfg.training, cfg.dataset.crop
    b = len(picked)
    scales = views.uniform(b, training.scale, generator)
    steps, tops, lefts, labels = 1 / scales, torch.empty(b), torch.empty(b), []
    flips = torch.rand(b, generator=generator) < 0.5 * training.flip
    for i, (_, truth) in enumerate(picked):
        step = float(steps[i])
        for _ in range(N_CROPS):
            starts = [  # in pixels of the image; an image that is smaller lies anywhere in the crop
                float(torch.rand((), generator=generator)) * (n - step * crop)
                for n, crop in zip(truth.shape, (height, width), strict=True)
            ]
            rows, columns = (
                views.nearest(start, step, n, crop)
                for start, n, crop in zip(starts, truth.shape, (height, width), strict=True)
            )
            seen = truth[np.maximum(rows, 0)[:, None], np.maximum(columns, 0)]
            seen = np.where((rows[:, None] < 0) | (columns < 0), IGNORE, seen)
            counts = np.bincount(seen.ravel(), minlength=IGNORE + 1)[:IGNORE]
            if counts.max() <= training.single_class * max(counts.sum(), 1):
                break
        tops[i], lefts[i] = starts
        labels.append(seen[:, ::-1] if flips[i] else seen)
    sides = [torch.tensor([image.shape[axis] for image, _ in picked]) for axis in (0, 1)]
    rows = views.weights(tops, steps, sides[0], height)
    columns = views.weights(lefts, steps, sides[1], width)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    shown = views.resample(views.stack([image for image, _ in picked]), rows, columns / 255)
    if training.colour:
        shown = distort(shown, training.colour, generator)
    return shown, torch.from_numpy(np.stack(labels)).long()


def distort(shown: Tensor, strength: float, generator: Generator) -> Tensor:
    """Photometric distortion of images (b, 3, h, w) in [0, 1]; what is black beyond them is not.

    Brightness is a factor here where mmseg adds; hue, saturation and contrast are as there.
    """
    b = len(shown)
    chosen = torch.rand(4, b, generator=generator) < 0.5  # each of them half of the time
    limits = [min(each * strength, 1) for each in (2 * BRIGHTNESS, CONTRAST, SATURATION)]
    factors = [1 + limit * views.uniform(b, (-1, 1), generator) for limit in limits]
    factors = [torch.where(on, each, 1.0) for on, each in zip(chosen, factors, strict=False)]
    turn = views.uniform(b, (-HUE * strength, HUE * strength), generator)
    return views.recolour(shown, *factors, torch.where(chosen[3], turn, 0.0))
