"""Photographs of any sizes, and batches of crops of them."""

import importlib.util
import logging
import re
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import UserError, images
from common.datasets import folders, segmentations
from unsup_seg_torch import config

log = logging.getLogger("unsup_seg_torch.data")

LABELLED = ("bsds500", "ade20k", "camvid")
CROPS = 128  # of an epoch at least: few pictures are seen more often
# Photographs that lie on disk wherever the two packages do.
PHOTOGRAPHS = {
    "skimage": [
        f"data/{name}" for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    ],
    "sklearn": [f"datasets/images/{name}" for name in ("china.jpg", "flower.jpg")],
}


class Pictures:
    """The pictures that a config names, reduced to max_side and in memory.

    paths, names, images: one each; images uint8 (h, w, 3). Raises UserError for what cannot be
    read; of several, files that cannot be are skipped, named in the log and counted.
    """

    def __init__(self, cfg: config.Dataset, split: str | None = None):
        self.cfg = cfg
        listed, skipped = _list(cfg, cfg.split if split is None else split)
        listed = listed[: cfg.n_images]

        def read(path: Path) -> np.ndarray | str:
            try:
                return reduce(images.load(path), cfg.max_side)
            except UserError as error:
                return str(error).removeprefix(f"{path}: ".replace("\n", "\\n"))

        with ThreadPool(4) as pool:
            found = pool.map(read, listed)
        good = [(path, image) for path, image in zip(listed, found, strict=True)
                if not isinstance(image, str)]  # fmt: skip
        skipped += [(str(path), why) for path, why in zip(listed, found, strict=True)
                    if isinstance(why, str)]  # fmt: skip
        if len(listed) == 1 and not good:
            raise UserError("{}: {}".format(*skipped[-1]))
        folders.check_skipped(skipped, len(good), cfg.max_bad, Path(cfg.path or cfg.name))
        self.paths = [str(path) for path, _ in good]
        self.images = [image for _, image in good]
        self.names = unique_names([path for path, _ in good])
        self.checksum = folders.checksum([(path, (path.name,)) for path, _ in good])

    def __len__(self) -> int:
        return len(self.paths)

    def full(self, i: int) -> np.ndarray:
        """A picture as large as it is, or full_side lets it be: uint8 (h, w, 3)."""
        return reduce(images.load(self.paths[i]), self.cfg.full_side)


def _list(cfg: config.Dataset, split: str) -> tuple[list[Path], list[tuple[str, str]]]:
    if cfg.path:
        found, unreadable = folders.list_images(Path(cfg.path).expanduser() / split)
        return sorted(found, key=_in_time), unreadable
    if cfg.name in LABELLED:
        return [Path(path) for path in segmentations.load(cfg.name, split, cfg.root).paths], []
    if cfg.name == "folder":
        raise UserError("dataset.name folder needs dataset.path, a picture or a folder of them")
    if cfg.name != "photographs":
        known = ", ".join(("photographs", *LABELLED, "folder"))
        raise UserError(f"dataset.name {cfg.name} is not known: {known}")
    found = []
    for package, files in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            found += [Path(spec.origin).parent / file for file in files]
    found = [path for path in found if path.is_file()]
    if not found:
        raise UserError("scikit-image and scikit-learn are absent: give a --dataset.path")
    return found, []


def _in_time(path: Path) -> list[tuple[str, int, str]]:
    """By numbers as numbers, so that frame_10 comes after frame_9."""
    parts = re.split("([0-9]+)", str(path))  # text, number, text, ..., text
    numbers = [*map(int, parts[1::2]), 0]
    return list(zip(parts[::2], numbers, [*parts[1::2], ""], strict=True))


def reduce(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """uint8 (h, w, 3) in the same proportions, its longest side max_side or less."""
    h, w = image.shape[:2]
    shrink = min(1.0, (max_side or max(h, w)) / max(h, w))
    size = max(round(h * shrink), 1), max(round(w * shrink), 1)
    return image if size == (h, w) else images.resize(image, size)


def nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (h, w) at another size, each pixel from the one that its centre falls into."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]


def to_float(pictures: np.ndarray) -> Tensor:
    """uint8 (b, h, w, 3) -> float32 (b, 3, h, w) in [0, 1]"""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


def n_crops(cfg: config.Config, n: int) -> int:
    """Of each of n pictures in an epoch."""
    return cfg.training.crops or -(-CROPS // n)


def n_batches(cfg: config.Config, n: int) -> int:
    """Of an epoch over n pictures."""
    return -(-n * n_crops(cfg, n) // cfg.training.batch_size)


def batches(
    pictures: list[np.ndarray], cfg: config.Config, epoch: int, first: int = 0
) -> Iterator[Tensor]:
    """Crops (b, 3, h, w) of one epoch in [0, 1], each mirrored or not, from batch `first` on.

    What they are depends on seed, epoch and number of the batch alone, so that a resumed epoch goes
    on where it stopped. Crops of a batch are as large as the smallest of its pictures lets them be.
    """
    n, size = len(pictures), cfg.training.batch_size
    order = _random(cfg, epoch, -1).permutation(np.repeat(np.arange(n), n_crops(cfg, n)))
    for batch in range(first, n_batches(cfg, n)):
        random = _random(cfg, epoch, batch)
        chosen = [pictures[i] for i in order[batch * size : (batch + 1) * size]]
        h, w = (
            min(min(image.shape[axis] for image in chosen), cfg.dataset.crop or 1 << 30)
            for axis in (0, 1)
        )
        crops = []
        for image in chosen:
            y = random.integers(image.shape[0] - h + 1)
            x = random.integers(image.shape[1] - w + 1)
            crop = image[y : y + h, x : x + w]
            crops.append(crop[:, ::-1] if random.random() < 0.5 else crop)
        yield to_float(np.stack(crops))


def _random(cfg: config.Config, epoch: int, batch: int) -> np.random.Generator:
    return np.random.default_rng([cfg.training.seed, epoch, batch + 1])


def unique_names(paths: list[Path]) -> list[str]:
    """A name for each picture that any file system takes, no two the same."""
    names: list[str] = []
    taken: set[str] = set()
    for i, path in enumerate(paths):
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in path.stem)[:80] or "_"
        names.append(f"{name}_{i}" if name.lower() in taken else name)
        taken.add(names[-1].lower())
    return names
