"""Photographs of any size, and batches of random crops."""

import importlib.util
import logging
import re
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from torch import Tensor

from common import UserError, images
from common.datasets import folders, segmentations
from common.pytorch.images import to_tensor
from unsup_seg_torch.wnet import config

log = logging.getLogger("unsup_seg_torch.wnet.data")

LABELED = ("bsds500", "ade20k", "camvid")
MIN_CROPS = 128  # per epoch: with few images more crops are taken of each
# Photographs that come with the two packages.
PHOTOGRAPHS = {
    "skimage": [
        f"data/{name}" for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
    ],
    "sklearn": [f"datasets/images/{name}" for name in ("china.jpg", "flower.jpg")],
}


class Photographs:
    """The images that a config names, reduced to max_side and held in memory.

    paths, names, images: one each; images uint8 (h, w, 3). Raises UserError for what cannot be
    read; of several files, unreadable ones are skipped, logged and counted.
    """

    def __init__(self, dataset_cfg: config.Dataset, split: str | None = None):
        self.dataset_cfg = dataset_cfg
        files, skipped = _list_files(dataset_cfg, dataset_cfg.split if split is None else split)
        files = files[: dataset_cfg.n_images]

        def read(path: Path) -> np.ndarray | str:
            try:
                return images.shrink(images.load(path), dataset_cfg.max_side)
            except UserError as error:
                return str(error).removeprefix(f"{path}: ".replace("\n", "\\n"))

        with ThreadPool(4) as pool:
            results = list(zip(files, pool.map(read, files), strict=True))
        good = [(path, image) for path, image in results if not isinstance(image, str)]
        skipped += [(str(path), reason) for path, reason in results if isinstance(reason, str)]
        if len(files) == 1 and not good:
            raise UserError("{}: {}".format(*skipped[-1]))
        folders.check_skipped(
            skipped, len(good), dataset_cfg.max_bad, Path(dataset_cfg.path or dataset_cfg.name)
        )
        paths = [path for path, _ in good]
        self.paths = [str(path) for path in paths]
        self.images = [image for _, image in good]
        self.names = images.unique_names(paths)
        self.checksum = folders.checksum([(path, (path.name,)) for path in paths])

    def __len__(self) -> int:
        return len(self.paths)

    def full(self, i: int) -> np.ndarray:
        """An image at full size, or reduced to full_side: uint8 (h, w, 3)."""
        return images.shrink(images.load(self.paths[i]), self.dataset_cfg.full_side)


def _list_files(
    dataset_cfg: config.Dataset, split: str
) -> tuple[list[Path], list[tuple[str, str]]]:
    """The files of a dataset, and (path, reason) of what cannot be listed."""
    if dataset_cfg.path:
        files, unreadable = folders.list_images(Path(dataset_cfg.path).expanduser() / split)
        return sorted(files, key=_natural_order), unreadable
    if dataset_cfg.name in LABELED:
        return [
            Path(path)
            for path in segmentations.load(dataset_cfg.name, split, dataset_cfg.root).paths
        ], []
    if dataset_cfg.name == "folder":
        raise UserError("dataset.name folder needs dataset.path, an image or a folder of images")
    if dataset_cfg.name != "photographs":
        known = ", ".join(("photographs", *LABELED, "folder"))
        raise UserError(f"dataset.name {dataset_cfg.name} is not known: expected one of {known}")
    files = []
    for package, names in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            files += [Path(spec.origin).parent / name for name in names]
    files = [path for path in files if path.is_file()]
    if not files:
        raise UserError("scikit-image and scikit-learn are not installed: pass --dataset.path")
    return files, []


def _natural_order(path: Path) -> list[tuple[str, int, str]]:
    """Sort key in which frame_10 comes after frame_9."""
    parts = re.split("([0-9]+)", str(path))  # text, number, text, ..., text
    numbers = [*map(int, parts[1::2]), 0]
    return list(zip(parts[::2], numbers, [*parts[1::2], ""], strict=True))


def crops_per_image(cfg: config.Config, n_images: int) -> int:
    """Crops of each image in an epoch."""
    return cfg.training.crops or -(-MIN_CROPS // n_images)


def n_batches(cfg: config.Config, n_images: int) -> int:
    """Batches of an epoch."""
    return -(-n_images * crops_per_image(cfg, n_images) // cfg.training.batch_size)


def batches(
    photos: Sequence[np.ndarray], cfg: config.Config, epoch: int, first: int = 0
) -> Iterator[Tensor]:
    """Random crops (b, 3, h, w) of one epoch in [0, 1], half of them mirrored, from batch `first`.

    They depend only on seed, epoch and batch, so that a resumed epoch continues exactly. The crops
    of a batch are at most as large as its smallest image.
    """
    n, size = len(photos), cfg.training.batch_size
    order = _rng(cfg, epoch, -1).permutation(np.repeat(np.arange(n), crops_per_image(cfg, n)))
    for batch in range(first, n_batches(cfg, n)):
        rng = _rng(cfg, epoch, batch)
        chosen = [photos[i] for i in order[batch * size : (batch + 1) * size]]
        h, w = (
            min(min(image.shape[axis] for image in chosen), cfg.dataset.crop or 1 << 30)
            for axis in (0, 1)
        )
        crops = []
        for image in chosen:
            y = rng.integers(image.shape[0] - h + 1)
            x = rng.integers(image.shape[1] - w + 1)
            crop = image[y : y + h, x : x + w]
            crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
        yield to_tensor(np.stack(crops))


def _rng(cfg: config.Config, epoch: int, batch: int) -> np.random.Generator:
    return np.random.default_rng([cfg.training.seed, epoch, batch + 1])
