"""Features of images by a trained DINO, their evaluation, attention maps and segments."""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from common import UserError, cli, datasets, images, predictions
from common.pytorch import checkpoint
from common.pytorch.device import select_device
from common.pytorch.neighbors import faiss_finds_others, nearest_others
from common.run import Run
from common.video import Frame
from unsup_seg_torch.dino import config, data, figures, model, probes, train
from unsup_seg_torch.vit import visualize
from unsup_seg_torch.vit import weights as vit_weights
from unsup_seg_torch.vit.encoder import Encoder

log = logging.getLogger("unsup_seg_torch.dino.pred")

N_QUERIES, N_NEAREST, N_ATTENTION = 8, 8, 6  # images and neighbors in the figures
MIN_SIDE = 96  # pixels, to which small images are enlarged for attention maps


def predict(cfg: config.Config, run: Run, args: argparse.Namespace) -> None:
    """Features of the training images and their scores, or of --input; raises UserError."""
    visualize.check_options(args)
    encoder, out = load(cfg, run).teacher.encoder, cli.output_folder(run, args)
    if args.input is None:
        dataset = data.load(cfg.dataset)
        run.check_dataset(dataset.checksum, cli.PASS_AS_INPUT)
        with predictions.writing(out):
            write(cfg, encoder, dataset, out)
        log.info("%d images: %s", len(dataset.paths), out / "predictions.csv")
        return
    visualize.write(encoder, args, out, cfg.dataset.max_bad)
    rows, embeddings = [], []
    for frame in visualize.input_frames(args, cfg.dataset.max_bad):
        rows.append((frame.path, frame.name, *frame.image.shape[:2]))
        small = images.shrink(frame.image, args.size)
        embeddings.append(visualize.class_token(encoder, small))
    if not rows:
        raise UserError(f"no images found in {args.input}")
    with predictions.writing(out):
        np.savez(out / "predictions.npz", embeddings=np.stack(embeddings))
        columns = dict(
            zip(("path", "name", "height", "width"), zip(*rows, strict=True), strict=True)
        )
        predictions.write_csv(out / "predictions.csv", columns)
        visualize.write_captions(out / "images", figures.CAPTIONS)
    log.info("%d images: %s", len(rows), out / "predictions.csv")


def load(cfg: config.Config, run: Run) -> model.DINO:
    """The networks of the run's latest checkpoint, in evaluation mode; raises UserError."""
    latest = run.require_checkpoint()
    state = train.initial_state(cfg, select_device())
    checkpoint.load_module(state.net, latest.path / "model.safetensors")
    vit_weights.adopt_header(state.net, latest.path / "model.safetensors")
    return state.net.eval()


def write(cfg: config.Config, encoder: Encoder, dataset: datasets.Images, out: Path) -> None:
    """predictions.npz and .csv, nearest neighbors, attention; probes.json if labels are known."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    embeddings = probes.features(encoder, dataset.images, cfg.training)
    nearest, cosines = neighbors(embeddings, N_NEAREST)
    columns = {
        "nearest": [dataset.paths[ids[0]] if len(ids) else "" for ids in nearest],
        "cosine": [values[0] if len(values) else "" for values in cosines],
    }
    predictions.write(out, dataset, {"embeddings": embeddings.cpu().numpy()}, columns)
    report = out / "probes.json"
    report.unlink(missing_ok=True)
    if dataset.labels is not None and len(np.unique(dataset.labels)) > 1:
        split = cfg.dataset.test_split
        test_split = data.load(cfg.dataset, split) if split else None
        untrained = train.initial_state(cfg, encoder.mean.device).net.eval().teacher.encoder
        compared = probes.compare(encoder, untrained, cfg, dataset, test_split)
        report.write_text(json.dumps(compared, indent=1))
    n = len(dataset.paths)
    queries = np.linspace(0, n - 1, min(N_QUERIES, n)).astype(int)
    rows = np.concatenate([queries[:, None], nearest[queries]], 1)
    scale = max(1, 48 // dataset.images.shape[1])
    grid = images.grid(dataset.images[rows.ravel()], rows.shape[1], scale=scale)
    images.save_png(out / "images/neighbors.png", grid)
    frames = [
        Frame(f"{i:05d}", dataset.paths[i], enlarge(dataset.images[i]))
        for i in queries[:N_ATTENTION]
    ]
    visualize.write_attention(encoder, frames, out)
    visualize.write_captions(out / "images", figures.CAPTIONS)


def enlarge(image: np.ndarray) -> np.ndarray:
    """A small image at a multiple of its size, at least MIN_SIDE; others unchanged."""
    scale = -(-MIN_SIDE // min(image.shape[:2]))
    size = image.shape[0] * scale, image.shape[1] * scale
    return image if scale == 1 else images.resize(image, size)


def neighbors(embeddings: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest others by cosine: (n, d) -> ids and cosines (n, min(k, n - 1))"""
    unit = F.normalize(embeddings)
    k = min(k, len(unit) - 1)
    nearest = nearest_others(unit, k) if faiss_finds_others(unit, k) else None
    parts = []
    for rows in torch.arange(len(unit)).split(probes.BATCH):
        if nearest is not None:
            parts.append(((unit[rows, None] * unit[nearest[rows]]).sum(2), nearest[rows]))
            continue
        cosines = unit[rows] @ unit.T
        cosines[torch.arange(len(rows)), rows] = -2
        parts.append(cosines.topk(k, dim=1))
    cosines, ids = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
    return ids, cosines
