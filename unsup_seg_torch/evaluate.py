"""Scores the segments of a run: python unsup_seg_torch/evaluate.py RUN [--boundaries]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])


import numpy as np

from common import UserError, bsds, cli, scoring, segmentations
from unsup_seg_torch.config import Config

NUMBERS = ("n_labels", "n_regions")
PROTOCOL = (
    "n_labels, n_regions: means over the pictures, of the network's labels and of the regions at "
    "model.height. Where people have segmented the pictures, as Arbelaez et al. 2011: covering, "
    "Rand index (pri), variation of information (vi, bits, less is better); ods: the height that "
    "is best for all pictures, ois: each picture's best; f, with --boundaries: of boundaries."
)


def main() -> None:
    cfg, run, args = cli.open_run(
        Config,
        __file__,
        "Score the segments of a run.",
        boundaries={
            "action": "store_true",
            "help": "also precision, recall and F of boundaries, which take minutes",
        },
    )
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
    scoring.write(run, scores, PROTOCOL)


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
            found.append(bsds.evidence(scales, truth.truths(i), boundaries))
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: {error}: run pred.py first") from None
    if len(found) < len(names):
        raise UserError(f"{len(names) - len(found)} pictures of {folder.parent} have no truth")
    return bsds.summary(found)


if __name__ == "__main__":
    cli.main(main)
