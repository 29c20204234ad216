"""Scores the segments of a run, or a method on a benchmark: python dfc_tf/evaluate.py RUN

python -m dfc_tf.evaluate --benchmark bsds500 --split val [--config fast.yml] [--out DIR]
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import subprocess

import numpy as np

from common import UserError, bsds, cli, scoring
from common.datasets import segmentations
from common.run import Run
from dfc_tf.config import Config

NUMBERS = ("n_labels", "n_segments")
PROTOCOL = (
    "n_labels and n_segments (connected pieces) are means over the pictures. all, fine, coarse and "
    "mean, where there are human segmentations: the best overlap of each human segment with a "
    "connected piece, one mean over all segments; all annotators, the finest, the coarsest map of "
    "each picture, and the mean of the three."
)


def main() -> None:
    if "--benchmark" in sys.argv:  # trains, so it is a process of its own
        command = [sys.executable, "-m", "dfc_tf.benchmark", *sys.argv[1:]]
        root = str(Path(__file__).resolve().parents[1])
        sys.exit(subprocess.run(command, cwd=root).returncode)
    cfg, run, _ = cli.open_run(Config, __file__, "Score the segments of a run.")
    rows = scoring.rows(run, NUMBERS)
    scores = {"n": len(rows)}
    for name in NUMBERS:
        scores[name] = float(np.mean([int(row[name]) for row in rows]))
    if cfg.dataset.name == "bsds500" and not cfg.dataset.path:
        scores |= against_people(cfg, run, [row["name"] for row in rows])
    scoring.write(run, scores, PROTOCOL)


def against_people(cfg: Config, run: Run, names: list[str]) -> dict:
    """The overlap with the human segmentations, of ours and of the baseline."""
    truth = segmentations.load(cfg.dataset.name, cfg.dataset.split, cfg.dataset.root)
    stems = [Path(path).stem for path in truth.paths]
    found: dict[str, list] = {"ours": [], "baseline": []}
    for name in names:
        truths = truth.ground_truths(stems.index(name))
        try:
            ours = np.load(run.path / "segments" / name / "labels.npy", allow_pickle=False)
            with np.load(run.path / "baseline" / f"{name}.npz", allow_pickle=False) as file:
                found["baseline"].append(bsds.overlaps(file["labels"], truths))
            found["ours"].append(bsds.overlaps(ours, truths))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{run.path}: labels of {name}: {error}: run pred.py first") from None
    baseline = {"name": "Felzenszwalb, scale 500"} | bsds.pool(found["baseline"])
    return bsds.pool(found["ours"]) | {"baseline": baseline}


if __name__ == "__main__":
    cli.main(main)
