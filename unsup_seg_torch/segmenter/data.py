"""Labeled images of any size, and the paper's augmentation of batches."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from common import UserError, images
from common.datasets import folders, segmentations
from common.pytorch.augment import adjust_colors, resample, resize_matrices, uniform
from common.pytorch.random import seeded_generator
from unsup_seg_torch.segmenter import config
from unsup_seg_torch.segmenter.digits import N_IMAGES, SyntheticDigits

log = logging.getLogger("unsup_seg_torch.segmenter.data")

IGNORE = 255  # label of ignored pixels, here for all datasets
MAX_CACHED = 2 << 30  # bytes of decoded images and labels that are kept in memory
MAX_CHECKED = 5000  # images up to which all are decoded before the training starts
N_CROPS = 10  # tries at a crop in which no class covers too much
# Strengths of the color changes: factors, and a fraction of the hue circle; those of mmseg.
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32 / 255, 0.5, 0.5, 18 / 360


class LabeledImages:
    """Images uint8 (h, w, 3) and labels uint8 (h, w) that a config names; 255 is ignored.

    Read on demand, resized to dataset.short_side, and cached while there is room. Raises UserError
    for what is missing; of several files, unreadable ones are skipped and logged.
    """

    def __init__(self, dataset_cfg: config.Dataset, split: str):
        self.dataset_cfg = dataset_cfg
        self.dataset = _load(dataset_cfg, split)
        if self.dataset.n_classes is None or self.dataset.n_classes > 255:
            raise UserError(f"{dataset_cfg.name} has no pixel classes: Segmenter needs 1 to 255")
        self.n_classes: int = self.dataset.n_classes
        self.classes = self.dataset.classes or [str(k) for k in range(self.n_classes)]
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._cached_bytes = 0
        self.indices = list(range(len(self.dataset)))[: dataset_cfg.n_images]
        self._skip_unreadable()
        if isinstance(self.dataset, SyntheticDigits):
            self.checksum = f"digits {split}"
        else:
            files = [self.dataset.ground_truth_paths[i] for i in self.indices]
            self.checksum = folders.checksum([(path, (path.name,)) for path in files])

    def _skip_unreadable(self) -> None:
        """Drops what cannot be decoded; of a large dataset this fails only when it is used."""
        if len(self.indices) > MAX_CHECKED:
            return

        def problem(i: int) -> str | None:
            try:
                self._read(i)
                return None
            except UserError as error:
                return str(error)

        with ThreadPool(4) as pool:
            problems = list(zip(self.indices, pool.map(problem, self.indices), strict=True))
        skipped = [(self.dataset.paths[i], reason) for i, reason in problems if reason]
        self.indices = [i for i, reason in problems if not reason]
        name = Path(self.dataset_cfg.path or self.dataset_cfg.name)
        folders.check_skipped(skipped, len(self.indices), self.dataset_cfg.max_bad, name)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def paths(self) -> list[str]:
        return [self.dataset.paths[i] for i in self.indices]

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self._read(self.indices[i])

    def check_classes(self, n: int = 2) -> None:
        """Raises UserError if the label maps have fewer than n classes."""
        cfg = self.dataset_cfg
        remedy = "expected two or more classes" if n > 1 else "expected labels"
        if isinstance(self.dataset, segmentations.Segmentations) and not cfg.values:
            remedy += "; for masks of 0 and 255 set dataset.values to [0,255]" * bool(cfg.path)
        what = f"the label maps of {cfg.path or cfg.name} have"
        check_classes((self[i][1] for i in range(len(self))), what, remedy, n)

    def full(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and labels at full size."""
        image = self.dataset.image(self.indices[i])
        labels = self.dataset.ground_truths(self.indices[i])[0]
        return image, np.where(labels == self.dataset.ignore, IGNORE, labels).astype(np.uint8)

    def _read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        if i in self._cache:
            return self._cache[i]
        image, labels = self.dataset.image(i), self.dataset.ground_truths(i)[0]
        labels = np.where(labels == self.dataset.ignore, IGNORE, labels).astype(np.uint8)
        image, labels = resize_pair(image, labels, self.dataset_cfg.short_side)
        if self._cached_bytes + image.nbytes + labels.nbytes <= MAX_CACHED:
            self._cache[i] = image, labels
            self._cached_bytes += image.nbytes + labels.nbytes
        return image, labels


def _load(dataset_cfg: config.Dataset, split: str) -> segmentations.Segmentations | SyntheticDigits:
    if dataset_cfg.name == "digits" and not dataset_cfg.path:
        if split not in N_IMAGES:
            expected = " or ".join(N_IMAGES)
            raise UserError(f"dataset.split of digits is {split!r}: expected {expected}")
        return SyntheticDigits(split)
    cfg = dataset_cfg
    return segmentations.load(cfg.name, split, cfg.root, cfg.path, cfg.values)


def check_classes(label_maps: Iterable[np.ndarray], what: str, remedy: str, n: int = 2) -> None:
    """Raises UserError if label maps have fewer than n classes besides IGNORE.

    Reads only as many of them as are needed. what: has them, for the message; remedy: what to do.
    """
    found: set[int] = set()
    has_ignored = False
    for labels in label_maps:
        counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)
        found |= set(np.flatnonzero(counts[:IGNORE]).tolist())
        has_ignored |= bool(counts[IGNORE])
        if len(found) >= n:
            return
    unlabeled = f"{IGNORE}, which means unlabeled"
    if not found:
        raise UserError(f"{what} nothing but {unlabeled}: {remedy}")
    besides = f" besides {unlabeled}" * has_ignored
    raise UserError(f"{what} only the class {found.pop()}{besides}: {remedy}")


def fit_short_side(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """The size (h, w) in the same proportions with that shorter side; None: unchanged."""
    if side is None:
        return size
    h, w = size
    return (side, max(round(w * side / h), 1)) if h <= w else (max(round(h * side / w), 1), side)


def resize_pair(
    image: np.ndarray, labels: np.ndarray, side: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels with that shorter side; labels by the nearest pixel."""
    size = fit_short_side(image.shape[:2], side)
    if size == image.shape[:2]:
        return image, labels
    return images.resize(image, size), images.resize_labels(labels, size)


def n_batches(cfg: config.Config, n_images: int) -> int:
    """Batches of an epoch."""
    return -(-n_images // cfg.training.batch_size)


def batches(
    dataset: LabeledImages, cfg: config.Config, epoch: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch from batch `first`: images (b, 3, h, w) in [0, 1], labels (b, h, w) int64.

    They depend only on seed, epoch and batch, so that a resumed epoch continues exactly.
    """
    n, size, seed = len(dataset), cfg.training.batch_size, cfg.training.seed
    order = torch.randperm(n, generator=seeded_generator(seed, epoch, 0)).tolist()
    for batch in range(first, n_batches(cfg, n)):
        pairs = [dataset[i] for i in order[batch * size : (batch + 1) * size]]
        yield augment(pairs, cfg, seeded_generator(seed, epoch, batch + 1))


def augment(
    pairs: list[tuple[np.ndarray, np.ndarray]], cfg: config.Config, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Random scale, crop, mirroring and colors of each pair (section 4.1, after mmseg).

    Labels are those of the nearest pixels; beyond the image pixels are black and ignored.
    """
    training, (height, width) = cfg.training, cfg.dataset.crop
    b = len(pairs)
    scales = uniform(b, training.scale, generator)
    steps, tops, lefts, labels = 1 / scales, torch.empty(b), torch.empty(b), []
    flips = torch.rand(b, generator=generator) < 0.5 * training.flip
    for i, (_, truth) in enumerate(pairs):
        step = float(steps[i])
        for _ in range(N_CROPS):
            starts = [  # in pixels of the image; a smaller image lies anywhere in the crop
                float(torch.rand((), generator=generator)) * (n - step * crop)
                for n, crop in zip(truth.shape, (height, width), strict=True)
            ]
            rows, columns = (
                nearest_pixels(start, step, n, crop)
                for start, n, crop in zip(starts, truth.shape, (height, width), strict=True)
            )
            crop_labels = truth[np.maximum(rows, 0)[:, None], np.maximum(columns, 0)]
            crop_labels = np.where((rows[:, None] < 0) | (columns < 0), IGNORE, crop_labels)
            counts = np.bincount(crop_labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
            if counts.max() <= training.single_class * max(counts.sum(), 1):
                break
        tops[i], lefts[i] = starts
        labels.append(crop_labels[:, ::-1] if flips[i] else crop_labels)
    sides = [torch.tensor([image.shape[axis] for image, _ in pairs]) for axis in (0, 1)]
    rows = resize_matrices(tops, steps, sides[0], height)
    columns = resize_matrices(lefts, steps, sides[1], width)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    views = resample(pad_to_batch([image for image, _ in pairs]), rows, columns / 255)
    if training.color:
        views = distort_colors(views, training.color, generator)
    return views, torch.from_numpy(np.stack(labels)).long()


def pad_to_batch(arrays: Sequence[np.ndarray]) -> Tensor:
    """uint8 (h, w, 3) of any sizes -> float32 (b, 3, H, W) of 0 to 255, zero-padded."""
    h, w = (max(image.shape[axis] for image in arrays) for axis in (0, 1))
    canvas = np.zeros((len(arrays), h, w, 3), np.uint8)
    for padded, image in zip(canvas, arrays, strict=True):
        padded[: image.shape[0], : image.shape[1]] = image
    return torch.from_numpy(canvas).permute(0, 3, 1, 2).float()


def nearest_pixels(start: float, step: float, side: int, n_out: int) -> np.ndarray:
    """Index of the pixel at each of n_out centers, as in `resize_matrices`; -1 outside."""
    centers = np.floor(start + (np.arange(n_out) + 0.5) * step).astype(np.int64)
    return np.where((centers >= 0) & (centers < side), centers, -1)


def distort_colors(views: Tensor, strength: float, generator: Generator) -> Tensor:
    """Photometric distortion of images (b, 3, h, w) in [0, 1]; the black padding changes too.

    Brightness is a factor, where mmseg adds; hue, saturation and contrast are as in mmseg.
    """
    b = len(views)
    chosen = torch.rand(4, b, generator=generator) < 0.5  # each of the four with probability 0.5
    limits = [min(each * strength, 1) for each in (2 * BRIGHTNESS, CONTRAST, SATURATION)]
    factors = [1 + limit * uniform(b, (-1, 1), generator) for limit in limits]
    factors = [torch.where(on, each, 1.0) for on, each in zip(chosen, factors, strict=False)]
    hue = uniform(b, (-HUE * strength, HUE * strength), generator)
    return adjust_colors(views, *factors, torch.where(chosen[3], hue, 0.0)).clamp_(0, 1)
