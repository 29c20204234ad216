"""Pictures of any kind as float arrays, the masks drawn on them, and batches for TensorFlow."""

import hashlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from common import UserError, images
from common.datasets import folders, segmentations
from dfc_tf import config

log = logging.getLogger("dfc_tf.data")

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")  # photographs that scikit-image has on disk
ARRAYS = (".npy", ".tif", ".tiff")
MAX_CHANNELS = 1024


@dataclass(frozen=True)
class Picture:
    """image (h, w, c) float32 in [0, 1]; rgb (h, w, 3) uint8 to look at; name of a file or folder.

    scribbles (h, w) int32: -1 where nothing is marked, else 0 to k - 1; None without a mask.
    """

    path: str
    name: str
    image: np.ndarray
    rgb: np.ndarray
    scribbles: np.ndarray | None = None


class Pictures:
    """The pictures that a config names, read when asked for: `len`, `[i]`, in the order of names.

    Raises UserError for what cannot be read; of a folder, files that cannot be are skipped, named
    in the log and counted.
    """

    def __init__(self, cfg: config.Dataset):
        self.cfg = cfg
        self.paths = _skip_unreadable(_paths(cfg), cfg)
        self.names = _names([Path(path) for path in self.paths])
        if cfg.scribbles and len(self.paths) > 1:
            raise UserError(
                f"dataset.scribbles is a mask of one picture, there are {len(self.paths)}"
            )
        if cfg.scribbles and not Path(cfg.scribbles).is_file():
            raise UserError(f"dataset.scribbles {cfg.scribbles} cannot be read: no such file")
        self.checksum = _checksum(self.paths + [cfg.scribbles] * bool(cfg.scribbles))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Picture:
        picture = load(self.paths[i], self.cfg.max_side, self.names[i])
        if not self.cfg.scribbles:
            return picture
        shape = picture.image.shape[:2]
        mask = read_scribbles(self.cfg.scribbles, _shape(self.paths[i]), shape)
        return Picture(picture.path, picture.name, picture.image, picture.rgb, mask)


def _paths(cfg: config.Dataset) -> list[str]:
    if cfg.path:
        return _files(Path(cfg.path).expanduser() / cfg.split)
    if cfg.name in SAMPLES:
        from skimage import data

        found = sorted(Path(data.__file__).parent.glob(f"{cfg.name}.*"))
        if not found:
            raise UserError(f"this scikit-image has no {cfg.name}: give a --dataset.path")
        return [str(found[0])]
    if cfg.name == "bsds500":
        return segmentations.load(cfg.name, cfg.split, cfg.root).paths
    if cfg.name == "folder":
        raise UserError("dataset.name folder needs dataset.path, a picture or a folder of them")
    raise UserError(
        f"dataset.name {cfg.name} is not known: {', '.join(SAMPLES)}, bsds500, or folder"
    )


def _files(path: Path) -> list[str]:
    """A picture, or those that lie directly in a folder, by name; masks are none of them."""
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise UserError(f"{path} is absent: expected a picture or a folder of pictures")
    try:
        files = sorted(path.iterdir())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    found = [
        file
        for file in files
        if file.name.lower().endswith((*folders.EXTENSIONS, *ARRAYS))
        and not file.name.startswith(".")
        and not file.stem.endswith("_scribble")
        and not file.is_dir()
    ]
    if not found:
        raise UserError(f"{path} holds no picture ({', '.join((*folders.EXTENSIONS, '.npy'))})")
    return list(map(str, found))


def _skip_unreadable(paths: list[str], cfg: config.Dataset) -> list[str]:
    if len(paths) == 1:
        load(paths[0], cfg.max_side)  # its reason is the whole answer
        return paths
    good, reasons = [], []
    for path in paths:
        try:
            path.encode()
            load(path, cfg.max_side)
            good.append(path)
        except (UserError, UnicodeEncodeError) as error:
            reasons.append(str(error))
            log.warning("skipped %s", ascii(str(error)).strip("'"))
    if reasons:
        count = f"{len(reasons)} of {len(paths)} pictures cannot be read"
        log.warning("%s", count)
        if not good or len(reasons) / len(paths) > cfg.max_bad:
            raise UserError(
                f"{count}, more than dataset.max_bad {cfg.max_bad} allows (first: {reasons[0]})"
            )
    return good


def load(path: str | Path, max_side: int, name: str = "") -> Picture:
    """Any picture, .npy array or .tif with any number of channels, reduced to max_side pixels.

    Integers are divided by the largest of their kind, floats outside [0, 1] are stretched. Raises
    UserError "PATH: reason".
    """
    path = Path(path)
    values = _read_array(path) if path.suffix.lower() in ARRAYS else None
    if values is None:
        values = images.load(path).astype(np.float32) / 255
    image = resize(values, fit(values.shape[:2], max_side))
    return Picture(str(path), name or path.stem, image, to_rgb(image))


def _read_array(path: Path) -> np.ndarray | None:
    """(h, w, c) float32 of a .npy or .tif, None of a .tif that is an ordinary picture."""
    try:
        if not path.is_file():  # a pipe would block for ever
            raise ValueError("not a file" if path.exists() else "no such file")
        if path.stat().st_size == 0:
            raise ValueError("empty file")
        read = _read_npy if path.suffix.lower() == ".npy" else _read_tif
        values = read(path)
        return None if values is None else to_unit(values)
    except Exception as error:  # a broken file makes tifffile raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        name = str(path).replace("\n", "\\n")
        raise UserError(f"{name}: {reason}") from None


def _read_npy(path: Path) -> np.ndarray:
    values = np.load(path, mmap_mode="r", allow_pickle=False)  # a false header allocates nothing
    _refuse_bomb(values.shape)
    return np.array(values)


def _read_tif(path: Path) -> np.ndarray | None:
    with tifffile.TiffFile(path) as file:
        page = file.series[0]
        _refuse_bomb(page.shape)
        if page.dtype == np.uint8 and page.shape[2:] in ((), (1,), (3,), (4,)):
            return None
        channels_first = page.ndim == 3 and page.axes.endswith("YX")
        return np.moveaxis(page.asarray(), 0, -1) if channels_first else page.asarray()


def _refuse_bomb(shape: tuple[int, ...]) -> None:
    if math.prod(shape) > 3 * images.MAX_PIXELS:
        raise ValueError(f"more than {3 * images.MAX_PIXELS // 10**6} million values")


def to_unit(values: np.ndarray) -> np.ndarray:
    """(h, w) or (h, w, c) of any number -> (h, w, c) float32 in [0, 1]; raises ValueError."""
    values = np.asarray(values)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or 0 in values.shape or values.shape[2] > MAX_CHANNELS:
        raise ValueError(f"shape {values.shape}, expected (h, w) or (h, w, channels)")
    if values.dtype.kind == "b":
        return values.astype(np.float32)
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return values.astype(np.float32) / np.iinfo(values.dtype).max
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{values.dtype}, expected numbers")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has a NaN or an infinity")
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, np.finfo(np.float64).tiny)
    return values.astype(np.float32)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """What one looks at: (h, w, c) in [0, 1] -> (h, w, 3) uint8, the first three channels."""
    if image.shape[2] < 3:
        return images.to_uint8(np.repeat(image[..., :1], 3, axis=2))
    return images.to_uint8(image[..., :3])


def fit(shape: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """The size (h, w) in the same proportions whose longest side is max_side or less."""
    shrink = min(1.0, (max_side or max(shape)) / max(shape))
    return max(round(shape[0] * shrink), 1), max(round(shape[1] * shrink), 1)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, c) float32 to size (h, w), antialiased bilinear as Pillow's."""
    if image.shape[:2] == tuple(size):
        return image
    channels = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(image[..., c])).resize(
                (size[1], size[0]), Image.Resampling.BILINEAR
            )
        )
        for c in range(image.shape[2])
    ]
    return np.clip(np.stack(channels, -1), 0, 1)


def nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (h, w) to size (h, w), each pixel from the one that its centre falls into."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]


def _shape(path: str) -> tuple[int, int]:
    """Height and width of a picture as it is on disk, upright."""
    return load(path, max_side=1 << 30).image.shape[:2]


def read_scribbles(path: str | Path, picture: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A mask drawn on a picture of a given (h, w), at `size`: (h, w) int32, -1 unmarked, 0 to k-1.

    An indexed or gray mask has 255 where nothing is marked (Kim et al.). One without a 255, or in
    colours, has the most frequent value there. A fully transparent pixel is unmarked. Raises
    UserError for a mask of another size, or that marks nothing, or everything.
    """
    try:
        with Image.open(path, formats=images.FORMATS) as file:
            if (file.height, file.width) != tuple(picture):
                raise UserError(
                    f"dataset.scribbles {path} is {file.height}x{file.width}, the picture "
                    f"{picture[0]}x{picture[1]}: they must be of one size"
                )
            is_indexed = file.mode in ("L", "P", "1") and "transparency" not in file.info
            pixels = np.array(file if is_indexed else file.convert("RGBA"))
    except OSError as error:
        raise UserError(f"dataset.scribbles {path} cannot be read: {error}") from None
    if pixels.ndim == 3:
        red, green, blue, alpha = np.moveaxis(pixels.astype(np.int64), -1, 0)
        pixels = np.where(alpha == 0, -1, (red << 16) + (green << 8) + blue)
    values, sizes = np.unique(pixels, return_counts=True)
    unmarked = next((v for v in (-1, 255) if v in values and (v < 0 or pixels.max() <= 255)), None)
    if unmarked is None:
        unmarked = values[sizes.argmax()]
    classes = values[values != unmarked]
    if not len(classes):
        raise UserError(f"dataset.scribbles {path} marks nothing: expected two classes or more")
    if len(classes) > 64:
        raise UserError(
            f"dataset.scribbles {path} has {len(classes)} colours: expected a mask with one flat "
            "colour a class, saved without smoothing and not as JPEG"
        )
    mask = np.searchsorted(classes, pixels).astype(np.int32)
    return shrink_mask(np.where(pixels == unmarked, -1, mask), size)


def shrink_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scribbles (h, w) at a smaller size: a new pixel has the class most marked within it."""
    if mask.shape == tuple(size):
        return mask.astype(np.int32)
    n_classes = mask.max() + 1
    rows, columns = (np.arange(old) * new // old for old, new in zip(mask.shape, size, strict=True))
    cells = (rows[:, None] * size[1] + columns)[mask >= 0]
    votes = np.bincount(
        cells * n_classes + mask[mask >= 0], minlength=size[0] * size[1] * n_classes
    ).reshape(*size, n_classes)
    return np.where(votes.any(-1), votes.argmax(-1), -1).astype(np.int32)


def superpixels(image: np.ndarray, n: int) -> np.ndarray:
    """About n SLIC segments of (h, w, c) -> (h, w) int32 from 0; compactness as in 2018."""
    from skimage.segmentation import slic

    is_rgb = image.shape[2] == 3
    # 2018: compactness 100 on Lab of 0..100; on other channels, in [0, 1], the same share
    found = slic(
        image,
        n,
        compactness=100 if is_rgb else 1,
        convert2lab=is_rgb,
        start_label=0,
        channel_axis=-1,
    )
    return np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int32)


def batches(cfg: config.Config, n: int) -> list[list[int]]:
    """Which pictures are trained on together: one each, or batches of reference pictures."""
    size = cfg.training.batch_size if cfg.dataset.mode == "reference" else 1
    return [list(range(i, min(i + size, n))) for i in range(0, n, size)]


def stack(cfg: config.Config, found: list[Picture]) -> Iterator[np.ndarray]:
    """Arrays for one training: images (b, h, w, c), targets (b, h, w), superpixels (b, h, w).

    All of the first one's size, which is the training's. Without scribbles the targets are -1,
    without superpixels their array is empty.
    """
    size = fit(found[0].image.shape[:2], cfg.training.max_side)
    yield np.stack([resize(each.image, size) for each in found])
    nothing = np.full(size, -1, np.int32)
    yield np.stack(
        [nothing if p.scribbles is None else shrink_mask(p.scribbles, size) for p in found]
    )
    if not cfg.model.superpixels:
        yield np.zeros((0, 0, 0), np.int32)
        return
    regions, n = [], 0
    for each in found:
        regions.append(superpixels(resize(each.image, size), cfg.model.superpixels) + n)
        n = regions[-1].max() + 1
    yield np.stack(regions)


def _names(paths: list[Path]) -> list[str]:
    """A name for each picture that any file system takes, no two the same."""
    names: list[str] = []
    for i, path in enumerate(paths):
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in path.stem)[:80] or "_"
        names.append(f"{name}_{i}" if name.lower() in {n.lower() for n in names} else name)
    return names


def _checksum(paths: list[str]) -> str:
    """sha256 over names, sizes and the first 64 kB of every file."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{Path(path).name}\0{Path(path).stat().st_size}\0".encode())
        with open(path, "rb") as file:
            digest.update(file.read(1 << 16))
    return digest.hexdigest()
