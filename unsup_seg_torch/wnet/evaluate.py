"""Scores of W-Net's regions; numpy only."""

from pathlib import Path

import numpy as np

from common import UserError, bsds, scoring
from common.datasets import segmentations
from common.run import Run
from unsup_seg_torch.wnet.config import Config

COUNTS = ("n_labels", "n_regions")
PROTOCOL = (
    "n_labels, n_regions: means over the images, of the network's labels and of the regions at "
    "model.height. With human segmentations, as Arbelaez et al. 2011: covering, Rand index (pri), "
    "variation of information (vi, bits, lower is better); ods: one height for all images, ois: "
    "the best for each image; f, with --boundaries: of boundaries."
)


def evaluate(cfg: Config, run: Run, with_boundaries: bool) -> tuple[dict, str]:
    """Numbers of labels and regions, agreement with human annotators; and the protocol."""
    rows = scoring.rows(run, COUNTS)
    scores: dict = {"n": len(rows)}
    for name in COUNTS:
        scores[name] = float(np.mean([int(row[name]) for row in rows]))
    if not cfg.dataset.path and cfg.dataset.name in ("bsds500", "ade20k", "camvid"):
        names = {row["path"]: row["name"] for row in rows}
        split = cfg.dataset.test_split or cfg.dataset.split
        truth = segmentations.load(cfg.dataset.name, split, cfg.dataset.root)
        scores |= against_ground_truth(run.path / "scales", names, truth, with_boundaries)
        baseline = against_ground_truth(run.path / "baseline", names, truth, with_boundaries)
        scores["baseline"] = {"name": "Felzenszwalb, three scales"} | baseline
    return scores, PROTOCOL


def against_ground_truth(
    folder: Path,
    names: dict[str, str],
    truth: segmentations.Segmentations,
    with_boundaries: bool,
) -> dict[str, float]:
    """The BSDS benchmark of FOLDER/NAME.npy, labels (scales, h, w); names: by image path."""
    counts = []
    for i, path in enumerate(truth.paths):
        if path not in names:
            continue
        file = folder / f"{names[path]}.npy"
        try:
            scales = np.load(file, allow_pickle=False)
            counts.append(bsds.per_image_counts(scales, truth.ground_truths(i), with_boundaries))
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: {error}: run pred.py first") from None
    if len(counts) < len(names):
        missing = len(names) - len(counts)
        raise UserError(f"{missing} images of {folder.parent} have no ground truth")
    return bsds.summary(counts)
