"""Images of any kind as float arrays, the scribbles drawn on them, and batches for TensorFlow."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps

from common import UserError, duplicates, images
from common.datasets import folders, segmentations
from common.images import tiff
from dfc_tf import config

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")  # photographs included in scikit-image
ARRAYS = (".npy", ".tif", ".tiff")
MAX_CHANNELS = 1024
CACHE_BYTES = 256 << 20  # of decoded images that a dataset keeps in memory


@dataclass(frozen=True)
class Sample:
    """image (h, w, c) float32 in [0, 1]; full_size (h, w) before it was reduced.

    scribbles (h, w) int32: -1 where unmarked, else a class from 0; None without a mask.
    """

    image: np.ndarray
    path: str = ""
    name: str = ""  # unique, valid as a file name
    full_size: tuple[int, int] | None = None
    scribbles: np.ndarray | None = None

    @cached_property
    def rgb(self) -> np.ndarray:
        """For display: (h, w, 3) uint8, the first three channels, or the first one as gray."""
        n_channels = self.image.shape[2]
        shown = self.image[..., :3] if n_channels >= 3 else self.image[..., :1].repeat(3, axis=2)
        return images.to_uint8(shown)


class ImageDataset:
    """The images that a config names, in the order of their names: `len`, `[i]` -> Sample.

    All of them are decoded to check them; up to CACHE_BYTES are kept, others are decoded again when
    they are used. Unreadable files of a folder are skipped, logged and counted. Raises UserError.
    """

    def __init__(self, dataset_cfg: config.Dataset):
        self.cfg = dataset_cfg
        self._cache: dict[str, Sample] = {}
        self._n_bytes = 0
        self._one_color: dict[str, bool] = {}  # by path
        self.paths = self._readable(_paths(dataset_cfg))
        self.names = images.unique_names(map(Path, self.paths))
        self._scribbles = None
        files = [Path(path) for path in self.paths]
        if dataset_cfg.scribbles:
            if len(self) > 1:
                raise UserError(f"dataset.scribbles is a mask of one image, there are {len(self)}")
            only = self._load(self.paths[0])
            mask = Path(dataset_cfg.scribbles)
            self._scribbles = read_scribbles(
                mask, only.full_size, only.image.shape[:2], self.paths[0]
            )
            files.append(mask)
        self.checksum = folders.checksum([(file, (file.name,)) for file in files])

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def are_one_color(self) -> list[bool]:
        """Whether all pixels of an image are equal, for each."""
        return [self._one_color[path] for path in self.paths]

    def __getitem__(self, i: int) -> Sample:
        sample = self._load(self.paths[i])
        return replace(sample, name=self.names[i], scribbles=self._scribbles)

    def _load(self, path: str) -> Sample:
        if path in self._cache:
            return self._cache[path]
        sample = load(path, self.cfg.max_side)
        self._one_color[path] = duplicates.is_one_color(sample.image)
        if not self._cache or self._n_bytes + sample.image.nbytes <= CACHE_BYTES:
            self._cache[path] = sample
            self._n_bytes += sample.image.nbytes
        return sample

    def _readable(self, paths: list[str]) -> list[str]:
        if len(paths) == 1:
            self._load(paths[0])
            return paths
        good, skipped = [], []
        for path in paths:
            try:
                path.encode()
                self._load(path)
                good.append(path)
            except UnicodeEncodeError:  # it could not be written to predictions.csv
                skipped.append((ascii(path), "its name is not UTF-8"))
            except UserError as error:
                skipped.append((path, str(error).removeprefix(f"{_one_line(path)}: ")))
        source = Path(self.cfg.path or self.cfg.name)
        folders.check_skipped(skipped, len(good), self.cfg.max_bad, source)
        return good


def _paths(dataset_cfg: config.Dataset) -> list[str]:
    if dataset_cfg.path:
        return _list_images(Path(dataset_cfg.path).expanduser() / dataset_cfg.split)
    name = dataset_cfg.name
    if name in SAMPLES:
        from skimage import data

        paths = sorted(Path(data.__file__).parent.glob(f"{name}.*"))
        if not paths:
            raise UserError(f"this version of scikit-image has no {name}: give a --dataset.path")
        return [str(paths[0])]
    if name == "bsds500":
        return segmentations.load(name, dataset_cfg.split, dataset_cfg.root).paths
    if name == "folder":
        raise UserError("dataset.name folder needs dataset.path, an image or a folder of images")
    raise UserError(f"dataset.name {name} is not known: {', '.join(SAMPLES)}, bsds500, or folder")


def _list_images(path: Path) -> list[str]:
    """An image, or the images directly inside a folder by name, without NAME_scribble masks."""
    if path.is_file():
        return [str(path)]
    if not path.is_dir():
        raise UserError(f"{path} does not exist: expected an image or a folder of images")
    try:
        files = sorted(path.iterdir())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    paths = [
        str(file)
        for file in files
        if (folders.is_image(file) or file.suffix.lower() in ARRAYS)
        and not file.name.startswith(".")
        and not file.stem.endswith("_scribble")
        and not file.is_dir()
    ]
    if not paths:
        known, unread = ", ".join((*folders.EXTENSIONS, ".npy")), folders.describe_unread(files)
        raise UserError(f"{path} contains no images ({known})" + f"; {unread}" * bool(unread))
    folders.log_unread(path, files)
    return paths


def load(path: str | Path, max_side: int | None = None) -> Sample:
    """Any image, .npy array or .tif with any number of channels, reduced to max_side pixels.

    See `to_float` for the range of values. Raises UserError "PATH: reason".
    """
    path = Path(path)
    values = _read_array(path) if path.suffix.lower() in ARRAYS else None
    if values is None:
        values = images.load(path).astype(np.float32) / 255
    size = values.shape[:2]
    return Sample(resize(values, images.fit_within(size, max_side)), str(path), path.stem, size)


def _read_array(path: Path) -> np.ndarray | None:
    """(h, w, c) float32 of a .npy or .tif, None for a .tif that Pillow reads."""
    try:
        if not path.is_file():  # reading a pipe would block for ever
            raise ValueError("not a file" if path.exists() else "no such file")
        if path.stat().st_size == 0:
            raise ValueError("empty file")
        read = _read_npy if path.suffix.lower() == ".npy" else _read_tif
        values = read(path)
        return None if values is None else to_float(values)
    except Exception as error:  # tifffile raises nearly anything for a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{_one_line(path)}: {reason}") from None


def _one_line(path: str | Path) -> str:
    return str(path).replace("\n", "\\n")


def _read_npy(path: Path) -> np.ndarray:
    values = np.load(path, mmap_mode="r", allow_pickle=False)  # allocates nothing: check size first
    _check_size(values.shape)
    return np.array(values)


def _read_tif(path: Path) -> np.ndarray | None:
    """The first page, upright; None if `images.load` reads it without losing bits or channels."""
    with open(path, "rb") as file:
        layout = tiff.read_layout(file)
    if layout is None:  # another format of that name
        return None
    if layout.photometric not in (tiff.WHITE_IS_ZERO, tiff.BLACK_IS_ZERO, tiff.RGB):
        return None
    n_others = layout.n_samples - (3 if layout.photometric == tiff.RGB else 1)
    is_unsigned, has_alpha = layout.kind == "unsigned", layout.alpha in tiff.ALPHAS
    if is_unsigned and layout.bits < 16 and (n_others == 0 or n_others == 1 and has_alpha):
        return None
    if layout.photometric == tiff.WHITE_IS_ZERO and layout.kind != "unsigned":
        raise ValueError(f"{layout}: expected unsigned integers, or black is zero")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        _check_size(page.shape)
        try:
            values = page.asarray()
        except ValueError:  # compressed in a way that tifffile cannot decode without other packages
            return images.load_values(path) if layout.is_gray else None
        if len(file.pages) > 1:
            images.log_pages(path)
    if values.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        values = np.moveaxis(values, 0, -1)
    values = tiff.upright(values, layout.orientation)
    if layout.photometric == tiff.WHITE_IS_ZERO:
        values = 2**layout.bits - 1 - values
    if is_unsigned and n_others == 1 and has_alpha:
        values = _blend_with_white(values, layout)
    return values


def _blend_with_white(values: np.ndarray, layout: tiff.Layout) -> np.ndarray:
    """Unsigned (h, w, c + 1), the last one alpha -> (h, w, c) of the same type."""
    highest = 2**layout.bits - 1
    colors, alpha = values[..., :-1].astype(np.float64), values[..., -1:] / highest
    if layout.alpha == tiff.UNASSOCIATED:
        colors *= alpha
    return np.rint(np.minimum(colors + highest * (1 - alpha), highest)).astype(values.dtype)


def _check_size(shape: tuple[int, ...]) -> None:
    if math.prod(shape) > 3 * images.MAX_PIXELS:
        raise ValueError(f"more than {3 * images.MAX_PIXELS // 10**6} million values")


def to_float(values: np.ndarray) -> np.ndarray:
    """Numbers (h, w) or (h, w, c) -> (h, w, c) float32 in [0, 1].

    Unsigned integers of 8 or 16 bits are divided by the maximum of their type, other values outside
    [0, 1] are rescaled from their minimum and maximum. Raises ValueError.
    """
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
        raise ValueError("it contains NaN or infinity")
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, np.finfo(np.float64).tiny)
    return values.astype(np.float32)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, c) float32 to size (h, w), bilinear with antialiasing, as in Pillow."""
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


def read_scribbles(
    path: Path,
    image_size: tuple[int, int],
    size: tuple[int, int],
    image_path: str | Path | None = None,
) -> np.ndarray:
    """A mask drawn on an image of image_size (h, w), reduced to size: int32, -1 where unmarked.

    Indexed and gray masks have 255 where nothing is marked (Kim et al.); in color masks, and those
    without 255, the most frequent value is unmarked. Transparent pixels are unmarked. The mask is
    rotated according to its own EXIF tag. Raises UserError if the sizes differ, or if the mask
    marks nothing or has no flat colors; image_path is for the message.
    """
    try:
        with images.opened(path) as (file, _):
            is_indexed = file.mode in ("L", "P", "1") and "transparency" not in file.info
            file = ImageOps.exif_transpose(file)
            pixels = np.array(file if is_indexed else file.convert("RGBA"))
    except UserError as error:
        raise UserError(f"dataset.scribbles cannot be read: {error}") from None
    if pixels.shape[:2] != tuple(image_size):
        reason = ""
        if image_path and Path(image_path).suffix.lower() != ".npy":
            reason = images.stored_size_hint(pixels.shape[:2], image_path)
        raise UserError(
            f"dataset.scribbles {path} is {pixels.shape[0]}x{pixels.shape[1]}, the image "
            f"{image_size[0]}x{image_size[1]}: expected the same size{reason}"
        )
    if pixels.ndim == 3:
        red, green, blue, alpha = np.moveaxis(pixels.astype(np.int64), -1, 0)
        pixels = np.where(alpha == 0, -1, (red << 16) + (green << 8) + blue)
    values, sizes = np.unique(pixels, return_counts=True)
    unmarked = next((v for v in (-1, 255) if v in values and (v < 0 or pixels.max() <= 255)), None)
    if unmarked is None:
        unmarked = values[sizes.argmax()]
    classes = values[values != unmarked]
    if not len(classes):
        raise UserError(f"dataset.scribbles {path} marks nothing: expected two or more classes")
    if len(classes) > 64:
        raise UserError(
            f"dataset.scribbles {path} has {len(classes)} colors: expected a mask with one flat "
            "color per class, saved without smoothing and not as JPEG"
        )
    mask = np.searchsorted(classes, pixels).astype(np.int32)
    return shrink_mask(np.where(pixels == unmarked, -1, mask), size)


def shrink_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scribbles (h, w) at a smaller size: each pixel has the class most marked inside of it."""
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
    """About n SLIC superpixels of (h, w, c): (h, w) int32 from 0, compactness as in Kanezaki 2018.

    The authors' 100 is for Lab, with values up to 100; other channels, in [0, 1], have 1.
    """
    from skimage.segmentation import slic

    is_rgb = image.shape[2] == 3
    labels = slic(
        image,
        n,
        compactness=100 if is_rgb else 1,
        convert2lab=is_rgb,
        start_label=0,
        channel_axis=-1,
    )
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def batches(cfg: config.Config, n: int) -> list[list[int]]:
    """Indices of the images trained on together: batch_size in mode reference, else one."""
    size = cfg.training.batch_size if cfg.dataset.mode == "reference" else 1
    return [list(range(i, min(i + size, n))) for i in range(0, n, size)]


def stack(cfg: config.Config, samples: list[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (b, h, w, c), scribbles (b, h, w), superpixels (b, h, w) at the training's size.

    All have the size of the first one, reduced to training.max_side. Scribbles are -1 where
    unmarked; superpixels are numbered through the batch, their array is empty if there are none.
    """
    size = images.fit_within(samples[0].image.shape[:2], cfg.training.max_side)
    arrays = [resize(sample.image, size) for sample in samples]
    unmarked = np.full(size, -1, np.int32)
    masks = [
        unmarked if sample.scribbles is None else shrink_mask(sample.scribbles, size)
        for sample in samples
    ]
    if not cfg.model.superpixels:
        return np.stack(arrays), np.stack(masks), np.zeros((0, 0, 0), np.int32)
    segments, n = [], 0
    for array in arrays:
        segments.append(superpixels(array, cfg.model.superpixels) + n)
        n = segments[-1].max() + 1
    return np.stack(arrays), np.stack(masks), np.stack(segments)
