"""DINO's features of images, what they are worth, and where the teacher looks."""

import argparse
import csv
import json
import logging
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from common import UserError, images
from common.run import Run
from unsup_seg_torch import checkpoint, looks
from unsup_seg_torch.dino import config, data, pictures, probes, train
from unsup_seg_torch.dino import model as networks
from unsup_seg_torch.encoders import Encoder
from unsup_seg_torch.media import Frame

log = logging.getLogger("unsup_seg_torch.dino.pred")

N_SHOWN, N_NEAREST, N_LOOKED = 8, 8, 6
SHOWN_SIDE = 96  # pixels at least, of an image whose attention is shown


def run_prediction(
    cfg: config.Config, run: Run, args: argparse.Namespace, device: torch.device
) -> None:
    """Features of the training's images and their scores; of --input features, maps, segments."""
    net = load(cfg, run, device)
    encoder = net.teacher.encoder
    if args.input is None:
        if args.attention or args.segments:
            raise UserError("--attention and --segments are for new pictures: give --input")
        found = data.load(cfg.dataset)
        if found.checksum != run.meta.get("dataset_checksum"):
            raise UserError("the images are not what they were in training: give them as --input")
        out = Path(args.out or run.path)
        try:
            write(cfg, encoder, found, out, device)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror}") from None
        log.info("images: %d, %s", len(found.paths), out / "predictions.csv")
        return
    out = looks.out_of(run.path, args)
    looks.write(encoder, args, out, cfg.dataset.max_bad)
    rows, tokens = [], []
    for frame in looks.frames_of(args, cfg.dataset.max_bad):
        seen = looks.data.reduce(frame.image, args.size)
        rows.append([frame.path, frame.name, *frame.image.shape[:2]])
        tokens.append(net.eval()(looks.tensor(encoder, seen))[0].detach().cpu().numpy())
    if not rows:
        raise UserError(f"{args.input} holds no picture")
    try:
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / "predictions.npz", embeddings=np.stack(tokens))
        _write_csv(out / "predictions.csv", ["path", "name", "height", "width"], rows)
        looks.write_captions(out / "images", pictures.CAPTIONS)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    log.info("pictures: %d, %s", len(rows), out / "predictions.csv")


def load(cfg: config.Config, run: Run, device: torch.device) -> networks.DINO:
    """The networks of the run's latest checkpoint; raises UserError without one."""
    latest = run.latest_checkpoint()
    if latest is None:
        raise UserError(
            f"{run.path} has no checkpoint yet: train.py --resume {run.path} goes on with it"
        )
    state = train.begin(cfg, device)
    checkpoint.load(state.net, latest.path / "model.safetensors")
    return state.net.eval()


def write(
    cfg: config.Config,
    encoder: Encoder,
    found: data.datasets.Images,
    out: Path,
    device: torch.device,
) -> None:
    """predictions.npz and .csv, each image's nearest other, probes.json where labels are known."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    embeddings = probes.features(encoder, found.images, cfg.training)
    nearest, cosines = neighbours(embeddings, N_NEAREST)
    labels = {} if found.labels is None else {"labels": found.labels}
    np.savez(out / "predictions.npz", embeddings=embeddings.cpu().numpy(), **labels)
    rows = [
        [path, found.paths[near[0]] if len(near) else "", f"{cosine[0]:.6f}" if len(near) else ""]
        for path, near, cosine in zip(found.paths, nearest, cosines, strict=True)
    ]
    _write_csv(out / "predictions.csv", ["path", "nearest", "cosine"], rows)
    report = out / "probes.json"
    report.unlink(missing_ok=True)
    if found.labels is not None and len(np.unique(found.labels)) > 1:
        held_out = (
            data.load(cfg.dataset, cfg.dataset.test_split) if cfg.dataset.test_split else None
        )
        untrained = train.begin(cfg, device).net.eval().teacher.encoder
        compared = probes.compare(encoder, untrained, cfg, found, held_out)
        report.write_text(json.dumps(compared, indent=1))
    chosen = np.linspace(0, len(found.paths) - 1, min(N_SHOWN, len(found.paths))).astype(int)
    rows_shown = np.concatenate([chosen[:, None], nearest[chosen]], 1)
    grid = found.images[rows_shown.ravel()]
    scale = max(1, 48 // found.images.shape[1])
    images.save_png(
        out / "images/neighbours.png", images.grid(grid, rows_shown.shape[1], scale=scale)
    )
    frames = [
        Frame(f"{i:05d}", found.paths[i], enlarged(found.images[i])) for i in chosen[:N_LOOKED]
    ]
    looks.write_attention(encoder, frames, out)
    looks.write_captions(out / "images", pictures.CAPTIONS)


def enlarged(image: np.ndarray) -> np.ndarray:
    """A thumbnail as large as maps need it, bilinear; larger images as they are."""
    scale = -(-SHOWN_SIDE // min(image.shape[:2]))
    size = image.shape[0] * scale, image.shape[1] * scale
    return image if scale == 1 else images.resize(image, size)


def neighbours(embeddings: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k others nearest to each by cosine, and the cosines: (n, d) -> (n, k or n - 1) both"""
    unit = F.normalize(embeddings)
    k = min(k, len(unit) - 1)
    found = []
    for first in range(0, len(unit), probes.BATCH):
        cosines = unit[first : first + probes.BATCH] @ unit.T
        rows = torch.arange(len(cosines))
        cosines[rows, first + rows] = -2
        found.append(cosines.topk(k, dim=1))
    cosines, ids = (torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))
    return ids, cosines


def _write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
