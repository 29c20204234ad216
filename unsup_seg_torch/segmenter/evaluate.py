"""Scores of Segmenter's classes; numpy only."""

import numpy as np

from common import UserError, metrics, scoring
from common.run import Run
from unsup_seg_torch.segmenter.config import Config

PROTOCOL = (
    "Confusion matrices summed over all images of {split} at their full size; unlabeled pixels are "
    "ignored. miou: mean intersection over union of the classes; mean_accuracy: mean recall of the "
    "classes; weighted_iou: intersection over union weighted by the pixels of a class."
)


def evaluate(cfg: Config, run: Run) -> tuple[dict, str]:
    """Scores of the network's and the baseline's confusion matrices; and the protocol.

    A run without training has no baseline, which is from the labels of the training images.
    """
    counts = scoring.arrays(run.path / "confusion.npz") or {}
    classes = run.meta["classes"]
    shapes = {name: matrix.shape for name, matrix in counts.items()}
    names = ("network", "prior") if cfg.training.n_epochs else ("network",)
    if shapes != dict.fromkeys(names, (len(classes),) * 2):
        raise UserError(f"{run.path} has no readable confusion.npz: run pred.py on it first")

    def with_class_names(matrix: np.ndarray) -> dict:
        scores = metrics.confusion_scores(matrix)
        ious = dict(zip(classes, scores.pop("per_class"), strict=True))
        return scores | {"iou": {name: iou for name, iou in ious.items() if np.isfinite(iou)}}

    scores = {"n": len(scoring.rows(run, ("n_classes",))), **with_class_names(counts["network"])}
    if "prior" in counts:
        baseline = {"name": "most frequent class at each position"}
        scores["baseline"] = baseline | with_class_names(counts["prior"])
    split = cfg.dataset.test_split or cfg.dataset.split or "the dataset"
    return scores, PROTOCOL.format(split=split)
