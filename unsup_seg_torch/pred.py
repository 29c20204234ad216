"""Segments pictures: python unsup_seg_torch/pred.py RUN [--input FILE_OR_FOLDER] [--out DIR]

The frames of a film, a folder of them or a file, also become an animation. Of a transformer's run
also: pred.py RUN --input film.mp4 --attention, or --segments 6
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import csv
import dataclasses
import importlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from common import UserError, cli, images
from common.bsds.hierarchy import Hierarchy
from common.run import Run
from unsup_seg_torch import checkpoint, config, crf, data, media, pictures, regions, train, wnet

log = logging.getLogger("unsup_seg_torch.pred")

COLUMNS = ["path", "name", "height", "width", "n_labels", "n_regions", "largest_share"]
MAX_SHOWN = 12  # rows of the overview
MAX_FRAMES = 40  # of a film


def main() -> None:
    cfg, run, args = cli.open_run(
        config.CONFIGS,
        __file__,
        "Segment the pictures of a run, or new ones: labels, regions, their hierarchy; see where a "
        "transformer looks.",
        input={
            "metavar": "FILE_OR_FOLDER",
            "help": "new pictures, or a film; default: those of the training",
        },
        out={
            "metavar": "DIR",
            "help": "where to write; default RUN, with --input RUN/predictions_NAME",
        },
        frames={
            "type": int,
            "metavar": "N",
            "help": "W-Net: the labels of so many pictures as an animation, and of a film so many "
            f"frames; default: {MAX_FRAMES} of an input whose pictures are all of one size",
        },
        attention={
            "action": "store_true",
            "help": "with --input, of a transformer: where each head's class token looks",
        },
        segments={
            "type": int,
            "metavar": "K",
            "help": "with --input, of a transformer: the object, and 2 to K segments of features",
        },
        size={
            "type": int,
            "default": 480,
            "metavar": "PIXELS",
            "help": "longest side at which attention is computed",
        },
        mass={
            "type": float,
            "default": 0.6,
            "metavar": "SHARE",
            "help": "of the attention, that the patches of a mask hold",
        },
        max_frames={
            "type": int,
            "default": 1000,
            "metavar": "N",
            "help": "frames of a film, or pictures of a folder, that are read",
        },
    )
    if cfg.model.name != "wnet":
        module = importlib.import_module(f"unsup_seg_torch.{cfg.model.name}.pred")
        module.run_prediction(cfg, run, args, train.device())
        return
    if args.attention or args.segments:
        raise UserError(f"{run.path} is of a W-Net, which has no attention and no tokens")
    if args.frames is not None and args.frames < 0:
        raise UserError(f"--frames is {args.frames}: expected 0 or more")
    net = load(cfg, run)
    if args.input is None:
        split, out = cfg.dataset.test_split, Path(args.out or run.path)
        found = data.Pictures(cfg.dataset, split or cfg.dataset.split)
        if not split and found.checksum != run.meta.get("dataset_checksum"):
            raise UserError("the pictures are not what they were in training: give them as --input")
    else:
        source = Path(args.input)
        out = Path(args.out or run.path / f"predictions_{source.resolve().stem}")
        if media.is_film(source):
            source = unpack(source, out, args.frames)
        new = dataclasses.replace(cfg.dataset, path=str(source), split="", n_images=None)
        found = data.Pictures(new)
    n_frames = args.frames
    if n_frames is None:
        is_film = args.input and len({image.shape for image in found.images}) == 1
        n_frames = MAX_FRAMES if is_film and len(found) > 1 else 0
    try:
        write(cfg, run, net, found, out, n_frames)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    log.info("pictures: %d, %s", len(found), out / "predictions.csv")


def unpack(source: Path, out: Path, n_frames: int | None) -> Path:
    """The film's frames as a folder in out; raises UserError."""
    try:
        return media.unpack(source, out / "frames", n_frames or MAX_FRAMES)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None


def load(cfg: config.Config, run: Run) -> wnet.WNet:
    """The net of the run's latest checkpoint, to evaluate; raises UserError without one."""
    latest = run.latest_checkpoint()
    if latest is None:
        raise UserError(
            f"{run.path} has no checkpoint yet: train.py --resume {run.path} goes on with it"
        )
    net = wnet.build(cfg.model).to(train.device())
    checkpoint.load(net, latest.path / "model.safetensors")
    return net.eval()


class Segmentation(NamedTuple):
    """What is found in an image uint8 (h, w, 3): most probable labels (h, w), regions, decoded."""

    image: np.ndarray
    labels: np.ndarray
    hierarchy: Hierarchy
    decoded: np.ndarray


@torch.no_grad()
def probabilities(
    net: wnet.WNet, image: np.ndarray, cfg: config.Config
) -> tuple[np.ndarray, np.ndarray]:
    """Of an image uint8 (h, w, 3), seen at dataset.max_side: (k, h, w), and the image decoded."""
    small = data.to_float(data.reduce(image, cfg.dataset.max_side)[None])
    found, decoded = net(small.to(next(net.parameters()).device))
    decoded = images.to_uint8(decoded[0].permute(1, 2, 0).cpu().numpy())
    maps = regions.enlarge(found[0].cpu().numpy(), image.shape[:2])
    return maps, images.resize(decoded, image.shape[:2])


def segment(net: wnet.WNet, image: np.ndarray, cfg: config.Config) -> Segmentation:
    """Labels are found in the picture at dataset.max_side and refined at its own size."""
    maps, decoded = probabilities(net, image, cfg)
    if cfg.model.crf_iterations:
        maps = crf.refine(maps, image, cfg.model.crf_iterations)
    found = regions.hierarchy(maps, image, cfg.model)
    return Segmentation(image, maps.argmax(0), found, decoded)


def write(
    cfg: config.Config, run: Run, net: wnet.WNet, found: data.Pictures, out: Path, n_frames: int
) -> None:
    """predictions.csv; every picture's labels, regions and scales; what there is to look at."""
    for name in ("labels", "regions", "scales", "baseline"):
        (out / name).mkdir(parents=True, exist_ok=True)

    def one(i: int) -> tuple[list, list[np.ndarray], np.ndarray | None]:
        is_shown = i < max(MAX_SHOWN, n_frames)
        line, row, labels = write_one(cfg, segment(net, found.full(i), cfg), found, i, out)
        return (line, row, labels) if is_shown else (line, [], None)

    pool = ThreadPoolExecutor(2)  # what takes long lets go of the interpreter
    try:
        done = pool.map(one, range(len(found)))
        results = list(tqdm(done, "segmenting", len(found), unit="picture", disable=None))
    finally:
        pool.shutdown(cancel_futures=True)
    rows, shown, labels = zip(*results, strict=True)
    images.save_png(out / "images/overview.png", pictures.sheet(list(shown[:MAX_SHOWN])))
    if n_frames > 0:
        colours = images.palette(cfg.model.n_clusters)
        frames = zip(shown[:n_frames], labels[:n_frames], strict=True)
        pictures.write_frames(
            out / "images/frames.gif", [[row[0], colours[each]] for row, each in frames]
        )
    if out == run.path:
        pictures.write_evolution(out / "images", run.path / "evolution", cfg.model.n_clusters)
    pictures.write_captions(out / "images", found.names)
    with open(out / "predictions.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def write_one(
    cfg: config.Config, of: Segmentation, found: data.Pictures, i: int, out: Path
) -> tuple[list, list[np.ndarray], np.ndarray]:
    """The files of one picture -> its row, what the overview shows of it, its labels reduced."""
    name, height = found.names[i], cfg.model.height
    merged, scales = of.hierarchy.cut(height), of.hierarchy.cuts(regions.HEIGHTS)
    baseline = regions.baseline(of.image)
    pictures.write_labels(out / "labels" / f"{name}.png", of.labels)
    pictures.write_labels(out / "regions" / f"{name}.png", merged)
    np.save(out / "scales" / f"{name}.npy", scales.astype(np.uint16))
    np.save(out / "baseline" / f"{name}.npy", baseline)
    row = pictures.write(
        out / "images" / (name if len(found) > 1 else ""),
        of.image,
        of.labels,
        merged,
        of.decoded,
        of.hierarchy.ucm(),
        baseline[len(baseline) // 2],
        cfg.model.n_clusters,
    )
    shares = np.bincount(merged.ravel()) / merged.size
    n_labels = len(np.unique(of.labels))
    line = [found.paths[i], name, *merged.shape, n_labels, len(shares), f"{shares.max():.6f}"]
    return line, row, data.nearest(of.labels, row[0].shape[:2])


if __name__ == "__main__":
    cli.main(main)
