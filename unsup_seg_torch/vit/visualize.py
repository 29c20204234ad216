"""Visualizes a vision transformer: attention maps and segments of images and videos."""

import argparse
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common import UserError, images, predictions, video
from common.pytorch.images import to_tensor
from common.video import Frame
from unsup_seg_torch.vit import attention, tokencut
from unsup_seg_torch.vit.encoder import Encoder

log = logging.getLogger("unsup_seg_torch.vit.visualize")

MAX_PATCHES = 1200  # of an image that is cut: up to here the cut is exact and takes a second
TILE_SIDE = 200  # longer side in pixels of an image in an overview
MAX_SHOWN = 12  # rows of an overview
CAPTIONS = {
    "attention.png": (
        "Attention",
        "From left to right: the image, the mean over the heads, all heads in one figure (a color "
        "per head for the patches that contain 0.6 of its attention), then each head.",
    ),
    "attention.gif": ("Attention", "Mean over the heads, and all heads, frame by frame."),
    "segments.png": (
        "Segments of the features",
        "From left to right: the image, the object of a two-way normalized cut, its eigenvector, "
        "k segments.",
    ),
}


def check_options(args: argparse.Namespace) -> None:
    """Raises UserError for options of pred.py that need --input, or another one."""
    if args.input is None and (args.attention or args.segments is not None):
        raise UserError("--attention and --segments are for new images: pass --input")
    if args.input is not None and not Path(args.input).exists():
        expected = "expected an image, a video or a folder of images"
        raise UserError(f"{args.input} does not exist: {expected}")


def input_frames(args: argparse.Namespace, max_bad: float) -> Iterator[Frame]:
    """The images or frames of --input."""
    return video.frames(Path(args.input), args.max_frames, max_bad)


def write(encoder: Encoder, args: argparse.Namespace, out: Path, max_bad: float) -> None:
    """Writes what --attention and --segments ask for of --input; raises UserError."""
    source = Path(args.input)
    with predictions.writing(out):
        if args.attention:
            is_moving = source.is_dir() or video.is_video(source)
            frames = input_frames(args, max_bad)
            write_attention(encoder, frames, out, args.size, args.mass, is_moving)
        if args.segments:
            write_segments(encoder, input_frames(args, max_bad), out, args.segments)


def encoder_input(encoder: Encoder, image: np.ndarray) -> Tensor:
    """uint8 (h, w, 3) -> float32 (1, 3, h, w) in [0, 1] on the encoder's device"""
    return to_tensor(image[None]).to(encoder.mean.device)


@torch.no_grad()
def class_token(encoder: Encoder, image: np.ndarray) -> np.ndarray:
    """The class token's features (d,) of an image uint8 (h, w, 3)."""
    return encoder(encoder_input(encoder, image))[0, 0].cpu().numpy()


# ---- attention


def attend(
    encoder: Encoder, image: np.ndarray, size: int | None, mass: float = attention.MASS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image as the encoder sees it, the maps of all heads (k, h, w), and their masks.

    size: longer side in pixels; None: full size.
    """
    image = images.shrink(image, size)
    maps = attention.class_attention(encoder, encoder_input(encoder, image))[0].cpu().numpy()
    masks = attention.mass_mask(maps, mass)
    shape, patch = image.shape[:2], encoder.patch_size
    return image, *(attention.enlarge(each, shape, patch) for each in (maps, masks))


def write_attention(
    encoder: Encoder,
    frames: Iterable[Frame],
    out: Path,
    size: int | None = None,
    mass: float = attention.MASS,
    is_moving: bool = False,
) -> None:
    """Writes attention maps of images; raises UserError if there are none.

    For each image OUT/attention/NAME/ with mean.png, heads.png, mask.png (of the head with the
    largest weight), colors.png and attention.npz, the maps (k, rows, columns); an overview of the
    first images in OUT/images/attention.png; if is_moving also a gif and, with imageio-ffmpeg, mp4.
    """
    rows: list[list[np.ndarray]] = []
    animation: list[list[np.ndarray]] = []
    for frame in tqdm(frames, "attention", unit="image", disable=None):
        image, maps, masks = attend(encoder, frame.image, size, mass)
        heads = [attention.heatmap(each) for each in maps]
        mean = attention.blend(image, maps.mean(0))
        colors = attention.color_heads(image, masks, maps)
        folder = out / "attention" / frame.name
        step = encoder.patch_size
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / "attention.npz", maps=maps[:, ::step, ::step])
        strongest = masks[maps.max((1, 2)).argmax()]
        images.save_png(folder / "mean.png", mean)
        images.save_png(folder / "heads.png", images.grid(np.stack(heads)))
        images.save_png(folder / "mask.png", np.where(strongest[..., None], image, image // 4))
        images.save_png(folder / "colors.png", colors)
        row = [images.shrink(each, TILE_SIDE) for each in (image, mean, colors, *heads)]
        if len(rows) < MAX_SHOWN:
            rows.append(row)
        if is_moving:
            animation.append(row[:3])
    if not rows:
        raise UserError("no images found in --input")
    images.save_png(out / "images/attention.png", images.sheet(_pad_rows(rows)))
    if is_moving:
        images.save_gif_of_rows(out / "images/attention.gif", animation)
        try:
            images.save_mp4_of_rows(out / "images/attention.mp4", animation)
        except UserError as error:
            log.info("attention.mp4 is not written: %s", error)


def _pad_rows(rows: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    longest = max(map(len, rows))
    blank = np.full((1, 1, 3), 255, np.uint8)
    return [row + [blank] * (longest - len(row)) for row in rows]


# ---- segments


def write_segments(
    encoder: Encoder, frames: Iterable[Frame], out: Path, n_segments: int, crf_iterations: int = 5
) -> None:
    """Writes the object and the segments of images; raises UserError if there are none.

    OUT/objects/NAME.png (mask), OUT/segments/NAME.png (labels), OUT/scales/NAME.npy (of 2 to
    n_segments, for `python -m common.bsds --pred OUT/scales`), OUT/segments.csv, an overview.
    """
    rows, table = [], []
    for name in ("objects", "segments", "scales"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for frame in tqdm(frames, "segmenting", unit="image", disable=None):
        mask, vector, scales = cut(encoder, frame.image, n_segments, crf_iterations)
        labels = scales[-1]
        images.save_png(out / "objects" / f"{frame.name}.png", (255 * mask).astype(np.uint8))
        images.save_label_map(out / "segments" / f"{frame.name}.png", labels)
        np.save(out / "scales" / f"{frame.name}.npy", scales.astype(np.uint16))
        row = [frame.path, frame.name, *mask.shape, mask.mean(), len(np.unique(labels))]
        table.append(row)
        if len(rows) < MAX_SHOWN:
            dark = np.where(mask[..., None], frame.image, frame.image // 4)
            shown = [frame.image, dark, vector, images.palette(n_segments)[labels]]
            rows.append([images.shrink(each, TILE_SIDE) for each in shown])
    if not rows:
        raise UserError("no images found in --input")
    images.save_png(out / "images/segments.png", images.sheet(rows))
    header = ["path", "name", "height", "width", "object_share", "n_segments"]
    columns = dict(zip(header, zip(*table, strict=True), strict=True))
    predictions.write_csv(out / "segments.csv", columns)


def cut(
    encoder: Encoder, image: np.ndarray, n_segments: int, crf_iterations: int = 5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The object's mask (h, w), the eigenvector as colors, and labels (n_segments - 1, h, w).

    The labels are those of 2, 3, ... n_segments segments, refined at the size of the image.
    """
    small = shrink_to_patches(image, MAX_PATCHES, encoder.patch_size)
    patches = tokencut.features(encoder, encoder_input(encoder, small))[0].float().cpu().numpy()
    size, patch = small.shape[:2], encoder.patch_size
    mask, vector = tokencut.two_way(patches)

    def refine(labels: np.ndarray) -> np.ndarray:
        refined = tokencut.refine(labels.astype(np.int64), small, patch, crf_iterations)
        return images.resize_labels(refined, image.shape[:2])

    scales = [refine(labels) for labels in tokencut.k_ways(patches, max(n_segments, 2))]
    colors = attention.heatmap(attention.enlarge(np.abs(vector)[None], size, patch)[0])
    return refine(mask).astype(bool), colors, np.stack(scales)


def shrink_to_patches(image: np.ndarray, max_patches: int, patch_size: int) -> np.ndarray:
    """The image uint8 (h, w, 3), reduced so that it has at most max_patches patches."""
    h, w = image.shape[:2]
    side = max(h, w)
    while side > patch_size and -(-h // patch_size) * -(-w // patch_size) > max_patches:
        side -= patch_size
        h, w = images.fit_within(image.shape[:2], side)
    return images.shrink(image, side)


def write_captions(folder: Path, others: dict[str, tuple[str, str]]) -> None:
    """Captions for the report: those of `others`, then these."""
    images.write_captions(folder, others | CAPTIONS)
