"""What an encoder sees in pictures and videos: attention maps, and segments of its features."""

import argparse
import csv
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common import UserError, images
from unsup_seg_torch import attention, data, media, pictures, tokencut
from unsup_seg_torch.encoders import Encoder
from unsup_seg_torch.media import Frame

log = logging.getLogger("unsup_seg_torch.looks")

MAX_PATCHES = 1200  # of a picture that is cut: up to here the cut is exact and takes a second
SHEET_SIDE = 200  # pixels, longest side, of each picture of a sheet
CAPTIONS = {
    "attention.png": (
        "Attention",
        "From left to right: the picture, the mean over the heads, all heads in one figure, one "
        "colour each where the patches are that hold 0.6 of its attention, then every head.",
    ),
    "attention.gif": ("Attention", "The heads' mean and all heads in one figure, frame by frame."),
    "segments.png": (
        "Segments of the features",
        "From left to right: the picture, the object of a two-way normalised cut, its "
        "eigenvector, k segments.",
    ),
}


def out_of(run: Path, args: argparse.Namespace) -> Path:
    """Where pred.py writes what it finds in --input."""
    return Path(args.out or run / f"predictions_{Path(args.input).resolve().stem}")


def frames_of(args: argparse.Namespace, max_bad: float) -> Iterator[Frame]:
    return media.frames(Path(args.input), args.max_frames, max_bad)


def write(encoder: Encoder, args: argparse.Namespace, out: Path, max_bad: float) -> None:
    """What pred.py's options ask for of --input; raises UserError."""
    if args.segments is not None and not 2 <= args.segments <= 64:
        raise UserError(f"--segments {args.segments}: expected 2 to 64")
    if not 0 < args.mass <= 1:
        raise UserError(f"--mass {args.mass}: expected more than 0, up to 1")
    for name in ("size", "max_frames"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected 1 or more")
    source = Path(args.input)
    try:
        if args.attention:
            moving = source.is_dir() or media.is_film(source)
            found = frames_of(args, max_bad)
            write_attention(encoder, found, out, args.size, args.mass, moving)
        if args.segments:
            write_segments(encoder, frames_of(args, max_bad), out, args.segments)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None


def fit(image: np.ndarray, max_patches: int | None, patch_size: int) -> np.ndarray:
    """The picture reduced so that it has no more patches than that: uint8 (h, w, 3)"""
    if max_patches is None:
        return image
    h, w = image.shape[:2]
    side = max(h, w)
    while side > patch_size and -(-h // patch_size) * -(-w // patch_size) > max_patches:
        side -= patch_size
        h, w = data.reduce(image[..., :1], side).shape[:2]
    return data.reduce(image, side)


def tensor(encoder: Encoder, image: np.ndarray) -> torch.Tensor:
    return data.to_float(image[None]).to(encoder.mean.device)


# ---- attention


def attend(
    encoder: Encoder, image: np.ndarray, size: int | None, mass: float = attention.MASS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture as it was seen, the maps of all heads (k, h, w) and their masks, at its pixels.

    size: the longest side that the encoder is shown; None: as large as it is.
    """
    image = data.reduce(image, size)
    maps = attention.class_rows(encoder, tensor(encoder, image))[0].cpu().numpy()
    masks = attention.mass_mask(maps, mass)
    shape, patch = image.shape[:2], encoder.patch_size
    return image, *(attention.enlarge(each, shape, patch) for each in (maps, masks))


def write_attention(
    encoder: Encoder,
    found: Iterable[Frame],
    out: Path,
    size: int | None = None,
    mass: float = attention.MASS,
    is_moving: bool = False,
    max_shown: int = 12,
) -> int:
    """OUT/attention/NAME/*.png for each picture, a sheet of the first, of frames gif and mp4.

    mean.png, heads.png, mask.png (of the head with the largest single weight), colours.png and
    attention.npz, the maps (k, rows, columns). Returns how many there were.
    """
    rows: list[list[np.ndarray]] = []
    moving: list[list[np.ndarray]] = []
    n = 0
    for frame in tqdm(found, "attention", unit="picture", disable=None):
        image, maps, masks = attend(encoder, frame.image, size, mass)
        heads = [attention.heat(one) for one in maps]
        mean = attention.blend(image, maps.mean(0))
        figure = attention.colours(image, masks, maps)
        folder = out / "attention" / frame.name
        step = encoder.patch_size
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / "attention.npz", maps=maps[:, ::step, ::step])
        strongest = masks[maps.max((1, 2)).argmax()]
        images.save_png(folder / "mean.png", mean)
        images.save_png(folder / "heads.png", images.grid(np.stack(heads)))
        images.save_png(folder / "mask.png", np.where(strongest[..., None], image, image // 4))
        images.save_png(folder / "colours.png", figure)
        row = [data.reduce(each, SHEET_SIDE) for each in (image, mean, figure, *heads)]
        rows += [row] if len(rows) < max_shown else []
        moving += [row[:3]] if is_moving else []
        n += 1
    if not n:
        raise UserError("there is no picture to look at")
    images.save_png(out / "images/attention.png", pictures.sheet(_even(rows)))
    if is_moving:
        pictures.write_frames(out / "images/attention.gif", moving)
        write_mp4(out / "images/attention.mp4", [pictures.sheet([row]) for row in moving])
    return n


def _even(rows: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    longest = max(map(len, rows))
    blank = np.full((1, 1, 3), 255, np.uint8)
    return [row + [blank] * (longest - len(row)) for row in rows]


def write_mp4(path: Path, frames: list[np.ndarray]) -> None:
    """A video beside the gif, where imageio-ffmpeg is installed; else a line says what it needs."""
    size = [max(frame.shape[axis] for frame in frames) for axis in (0, 1)]
    canvas = np.full((len(frames), *size, 3), 255, np.uint8)
    for place, frame in zip(canvas, frames, strict=True):
        place[: frame.shape[0], : frame.shape[1]] = frame
    try:
        images.save_mp4(path, canvas)
    except UserError as error:
        log.info("%s is not written: %s", path.name, error)


# ---- segments


def write_segments(
    encoder: Encoder,
    found: Iterable[Frame],
    out: Path,
    n_segments: int,
    crf_iterations: int = 5,
    max_shown: int = 12,
) -> int:
    """The object and the segments of each picture; returns how many there were.

    OUT/objects/NAME.png (the mask), OUT/segments/NAME.png (labels), OUT/scales/NAME.npy (2 to
    n_segments labels, for `python -m common.bsds --pred OUT/scales`), OUT/segments.csv, a sheet.
    """
    rows, table = [], []
    for name in ("objects", "segments", "scales"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for frame in tqdm(found, "cutting", unit="picture", disable=None):
        mask, vector, scales = cut(encoder, frame.image, n_segments, crf_iterations)
        labels = scales[-1]
        images.save_png(out / "objects" / f"{frame.name}.png", (255 * mask).astype(np.uint8))
        pictures.write_labels(out / "segments" / f"{frame.name}.png", labels)
        np.save(out / "scales" / f"{frame.name}.npy", scales.astype(np.uint16))
        table.append(
            [frame.path, frame.name, *mask.shape, f"{mask.mean():.6f}", len(np.unique(labels))]
        )
        if len(rows) < max_shown:
            dark = np.where(mask[..., None], frame.image, frame.image // 4)
            shown = [frame.image, dark, vector, images.palette(n_segments)[labels]]
            rows.append([data.reduce(each, SHEET_SIDE) for each in shown])
    if not rows:
        raise UserError("there is no picture to cut")
    images.save_png(out / "images/segments.png", pictures.sheet(rows))
    with open(out / "segments.csv", "w", newline="", encoding="utf-8") as file:
        header = ["path", "name", "height", "width", "object_share", "n_segments"]
        csv.writer(file).writerows([header, *table])
    return len(table)


def cut(
    encoder: Encoder, image: np.ndarray, n_segments: int, crf_iterations: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The object's mask (h, w), the eigenvector as colours, and labels (n_segments - 1, h, w).

    The labels are those of 2, 3, ... n_segments segments. Refined at the picture's own size.
    """
    seen = fit(image, MAX_PATCHES, encoder.patch_size)
    patches = tokencut.features(encoder, tensor(encoder, seen))[0].float().cpu().numpy()
    size, patch = seen.shape[:2], encoder.patch_size
    mask, vector = tokencut.two_way(patches)

    def refined(labels: np.ndarray) -> np.ndarray:
        at_seen = tokencut.refine(labels.astype(np.int64), seen, patch, crf_iterations)
        return data.nearest(at_seen, image.shape[:2])

    scales = [refined(labels) for labels in tokencut.k_ways(patches, max(n_segments, 2))]
    heat = attention.heat(attention.enlarge(np.abs(vector)[None], size, patch)[0])
    return refined(mask).astype(bool), heat, np.stack(scales)


def write_captions(folder: Path, others: dict[str, tuple[str, str]]) -> None:
    """Captions for the report: those of `others`, then these."""
    captions = others | CAPTIONS
    text = {name: {"title": title, "caption": words} for name, (title, words) in captions.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "captions.json").write_text(json.dumps(text, indent=1))
