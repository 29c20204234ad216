"""Segments images with a trained W-Net: labels, regions and their hierarchy."""

import argparse
import dataclasses
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from common import UserError, cli, duplicates, images, predictions, video
from common.bsds.hierarchy import Hierarchy
from common.pytorch import checkpoint
from common.pytorch.device import select_device
from common.pytorch.images import to_tensor
from common.run import Run
from unsup_seg_torch.postprocess import crf
from unsup_seg_torch.wnet import config, data, figures, model, regions

log = logging.getLogger("unsup_seg_torch.wnet.pred")

MAX_SHOWN = 12  # rows of the overview
MAX_FRAMES = 40  # of a video


def predict(cfg: config.Config, run: Run, args: argparse.Namespace) -> None:
    """Segments the images of the training, or those of --input; raises UserError."""
    if args.attention or args.segments is not None:
        raise UserError(f"{run.path} is a W-Net, which has no attention and no tokens")
    net, out = load(cfg, run), cli.output_folder(run, args)
    if args.input is None:
        split = cfg.dataset.test_split
        photos = data.Photographs(cfg.dataset, split or cfg.dataset.split)
        if not split:
            run.check_dataset(photos.checksum, cli.PASS_AS_INPUT)
    else:
        source = Path(args.input)
        if video.is_video(source):
            if args.frames == 0:
                raise UserError(
                    "--frames is 0, but a video is read up to there: expected 1 or more"
                )
            next(video.frames(source, 1))  # raises UserError before anything is written
            with predictions.writing(out):
                n = MAX_FRAMES if args.frames is None else args.frames
                source = video.unpack(source, out / "frames", n)
        photos = data.Photographs(
            dataclasses.replace(cfg.dataset, path=str(source), split="", n_images=None)
        )
    is_new = args.input is not None or cfg.dataset.test_split
    message = duplicates.one_color([*map(duplicates.is_one_color, photos.images)])
    if message and is_new:  # of the training images train.py has warned
        log.warning("%s", message)
    n_frames = args.frames
    if n_frames is None:
        are_frames = args.input and len({image.shape for image in photos.images}) == 1
        n_frames = MAX_FRAMES if are_frames and len(photos) > 1 else 0
    with predictions.writing(out):
        write(cfg, run, net, photos, out, n_frames)
    log.info("%d images: %s", len(photos), out / "predictions.csv")


def load(cfg: config.Config, run: Run) -> model.WNet:
    """The network of the run's latest checkpoint, in evaluation mode; raises UserError."""
    latest = run.require_checkpoint()
    net = model.build(cfg.model).to(select_device())
    checkpoint.load_module(net, latest.path / "model.safetensors")
    return net.eval()


class Segmentation(NamedTuple):
    """image, reconstruction uint8 (h, w, 3); labels (h, w): the most probable; their hierarchy."""

    image: np.ndarray
    labels: np.ndarray
    hierarchy: Hierarchy
    reconstruction: np.ndarray


@torch.no_grad()
def probabilities(
    net: model.WNet, image: np.ndarray, cfg: config.Config
) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 (h, w, 3) -> probabilities (k, h, w), reconstruction uint8 (h, w, 3).

    The network sees the image at dataset.max_side.
    """
    small = to_tensor(images.shrink(image, cfg.dataset.max_side)[None])
    maps, decoded = net(small.to(next(net.parameters()).device))
    reconstruction = images.to_uint8(decoded[0].permute(1, 2, 0).cpu().numpy())
    size = image.shape[:2]
    return regions.enlarge(maps[0].cpu().numpy(), size), images.resize(reconstruction, size)


def segment(net: model.WNet, image: np.ndarray, cfg: config.Config) -> Segmentation:
    """Labels are predicted at dataset.max_side and refined at the size of the image."""
    maps, reconstruction = probabilities(net, image, cfg)
    if duplicates.is_one_color(image):  # only the padding of the convolutions makes a difference
        maps[:] = maps.mean((1, 2), keepdims=True)
    elif cfg.model.crf_iterations:
        maps = crf.refine(maps, image, cfg.model.crf_iterations)
    hierarchy = regions.hierarchy(maps, image, cfg.model)
    return Segmentation(image, maps.argmax(0), hierarchy, reconstruction)


def write(
    cfg: config.Config,
    run: Run,
    net: model.WNet,
    photos: data.Photographs,
    out: Path,
    n_frames: int,
) -> None:
    """predictions.csv; labels, regions and scales of every image; the figures."""
    for name in ("labels", "regions", "scales", "baseline"):
        (out / name).mkdir(parents=True, exist_ok=True)

    def segment_one(i: int) -> tuple[dict, list[np.ndarray], np.ndarray | None]:
        segmentation = segment(net, photos.full(i), cfg)
        row, tiles, labels = write_one(cfg, segmentation, photos, i, out)
        is_shown = i < max(MAX_SHOWN, n_frames)
        return (row, tiles, labels) if is_shown else (row, [], None)

    pool = ThreadPoolExecutor(2)  # what takes long releases the interpreter lock
    try:
        results = pool.map(segment_one, range(len(photos)))
        results = list(tqdm(results, "segmenting", len(photos), unit="image", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
    rows, tiles, labels = zip(*results, strict=True)
    images.save_png(out / "images/overview.png", images.sheet(list(tiles[:MAX_SHOWN])))
    if n_frames > 0:
        colors = images.palette(cfg.model.n_clusters)
        frames = zip(tiles[:n_frames], labels[:n_frames], strict=True)
        images.save_gif_of_rows(
            out / "images/frames.gif", [[row[0], colors[label_map]] for row, label_map in frames]
        )
    if out == run.path:
        figures.write_evolution(out / "images", run.path / "evolution", cfg.model.n_clusters)
    figures.write_captions(out / "images", photos.names)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    predictions.write_csv(out / "predictions.csv", columns)


def write_one(
    cfg: config.Config, result: Segmentation, photos: data.Photographs, i: int, out: Path
) -> tuple[dict, list[np.ndarray], np.ndarray]:
    """Files of one image -> its row, its tiles in the overview, its labels reduced to a tile."""
    name = photos.names[i]
    merged = result.hierarchy.cut(cfg.model.height)
    scales = result.hierarchy.cuts(regions.HEIGHTS)
    baseline = regions.baseline(result.image)
    images.save_label_map(out / "labels" / f"{name}.png", result.labels)
    images.save_label_map(out / "regions" / f"{name}.png", merged)
    np.save(out / "scales" / f"{name}.npy", scales.astype(np.uint16))
    np.save(out / "baseline" / f"{name}.npy", baseline)
    tiles = figures.write(
        out / "images" / (name if len(photos) > 1 else ""),
        result.image,
        result.labels,
        merged,
        result.reconstruction,
        result.hierarchy.ucm(),
        baseline[len(baseline) // 2],
        cfg.model.n_clusters,
    )
    areas = np.bincount(merged.ravel()) / merged.size
    row = {
        "path": photos.paths[i],
        "name": name,
        "height": merged.shape[0],
        "width": merged.shape[1],
        "n_labels": len(np.unique(result.labels)),
        "n_regions": len(areas),
        "largest_share": float(areas.max()),
    }
    return row, tiles, images.resize_labels(result.labels, tiles[0].shape[:2])
