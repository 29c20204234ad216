"""Scores a run: python unsup_seg_torch/evaluate.py RUN [--boundaries]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json

import numpy as np

from common import UserError, bsds, cli, metrics, scoring
from common.datasets import segmentations
from common.run import Run
from unsup_seg_torch import config

NUMBERS = ("n_labels", "n_regions")
PROTOCOL = (
    "n_labels, n_regions: means over the pictures, of the network's labels and of the regions at "
    "model.height. Where people have segmented the pictures, as Arbelaez et al. 2011: covering, "
    "Rand index (pri), variation of information (vi, bits, less is better); ods: the height that "
    "is best for all pictures, ois: each picture's best; f, with --boundaries: of boundaries."
)


PROTOCOL_OF_CLASSES = (
    "Confusion matrices summed over all pictures of {split} at their own size; pixels without a "
    "label are left out. miou: mean over the classes of intersection over union; mean_accuracy: of "
    "the share of a class that is found; weighted_iou: iou by how many pixels a class has."
)


def main() -> None:
    cfg, run, args = cli.open_run(
        config.CONFIGS,
        __file__,
        "Score a run.",
        boundaries={
            "action": "store_true",
            "help": "W-Net: also precision, recall and F of boundaries, which take minutes",
        },
    )
    score = {"wnet": of_regions, "segmenter": of_classes, "dino": of_features}[cfg.model.name]
    scoring.write(run, *score(cfg, run, args))


def of_regions(cfg: config.Config, run: Run, args: argparse.Namespace) -> tuple[dict, str]:
    """W-Net: how many labels and regions, and how they agree with people's; the protocol."""
    rows = scoring.rows(run, NUMBERS)
    scores: dict = {"n": len(rows)}
    for name in NUMBERS:
        scores[name] = float(np.mean([int(row[name]) for row in rows]))
    if not cfg.dataset.path and cfg.dataset.name in ("bsds500", "ade20k", "camvid"):
        names = {row["path"]: row["name"] for row in rows}
        split = cfg.dataset.test_split or cfg.dataset.split
        truth = segmentations.load(cfg.dataset.name, split, cfg.dataset.root)
        boundaries = bool(args.boundaries)
        scores |= against_people(run.path / "scales", names, truth, boundaries)
        baseline = against_people(run.path / "baseline", names, truth, boundaries)
        scores["baseline"] = {"name": "Felzenszwalb, three scales"} | baseline
    return scores, PROTOCOL


def of_classes(cfg: config.SegmenterConfig, run: Run, args: argparse.Namespace) -> tuple[dict, str]:
    """Segmenter: what the confusion matrices say, of the network and of the baseline."""
    counts = scoring.arrays(run.path / "confusion.npz") or {}
    classes = run.meta["classes"]
    if {name: each.shape for name, each in counts.items()} != dict.fromkeys(
        ("network", "prior"), (len(classes),) * 2
    ):
        raise UserError(f"{run.path} has no readable confusion.npz: run pred.py on it first")

    def named(counts: np.ndarray) -> dict:
        scores = metrics.confusion_scores(counts)
        each = dict(zip(classes, scores.pop("per_class"), strict=True))
        return scores | {"iou": {name: iou for name, iou in each.items() if np.isfinite(iou)}}

    split = cfg.dataset.test_split or cfg.dataset.split or "the data set"
    scores = {
        "n": len(scoring.rows(run, ("n_classes",))),
        **named(counts["network"]),
        "baseline": {"name": "most frequent class at each place"} | named(counts["prior"]),
    }
    return scores, PROTOCOL_OF_CLASSES.format(split=split)


def of_features(cfg: config.DINOConfig, run: Run, args: argparse.Namespace) -> tuple[dict, str]:
    """DINO: what pred.py has found the features worth, where the images have labels."""
    scores: dict = {"n": len(scoring.predictions(run)["embeddings"])}
    path = run.path / "probes.json"
    if not path.exists():
        return scores, "no labels: there is nothing to score the features with"
    try:
        found = json.loads(path.read_text())
        scores |= found["scores"]
        scores |= {
            "untrained": found["untrained"],
            "raw_pixels": found["raw_pixels"],
            "baseline": {"name": "pixels, less each image's mean"} | found["centred_pixels"],
        }
        return scores, found["protocol"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is broken: run pred.py again") from None


def against_people(
    folder: Path, names: dict[str, str], truth: segmentations.Segmentations, boundaries: bool
) -> dict[str, float]:
    """The benchmark of folder/NAME.npy, labels (scales, h, w); names: of each path in the truth."""
    found = []
    for i, path in enumerate(truth.paths):
        if path not in names:
            continue
        file = folder / f"{names[path]}.npy"
        try:
            scales = np.load(file, allow_pickle=False)
            found.append(bsds.per_image_counts(scales, truth.ground_truths(i), boundaries))
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: {error}: run pred.py first") from None
    if len(found) < len(names):
        raise UserError(f"{len(names) - len(found)} pictures of {folder.parent} have no truth")
    return bsds.summary(found)


if __name__ == "__main__":
    cli.main(main)
