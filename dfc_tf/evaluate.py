"""Scores the segments of a run, or a config on a benchmark: python dfc_tf/evaluate.py RUN

python -m dfc_tf.evaluate --benchmark bsds500 --split val [--config fast.yml] [--out DIR]
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import subprocess

import numpy as np

from common import UserError, bsds, cli, scoring
from common.datasets import segmentations
from common.run import Run
from dfc_tf.config import Config

DESCRIPTION = (
    "Score the segments of a run. To score a config on a dataset instead, see "
    "evaluate.py --benchmark bsds500 --help."
)
NUMBERS = ("n_labels", "n_segments")
PROTOCOL = (
    "n_labels and n_segments (connected components) are means over the images. all, fine, coarse "
    "and mean, if there are human segmentations: the best overlap of each human segment with a "
    "connected component, averaged over all segments; for all annotators, the finest, the coarsest "
    "map of each image, and the mean of the three."
)


def main() -> None:
    if "--benchmark" in sys.argv:  # in a process of its own: it imports TensorFlow
        command = [sys.executable, "-m", "dfc_tf.benchmark", *sys.argv[1:]]
        startup.require_framework("dfc_tf")
        root = str(Path(__file__).resolve().parents[1])
        sys.exit(subprocess.run(command, cwd=root).returncode)
    cfg, run, _ = cli.open_run(Config, __file__, DESCRIPTION)
    rows = scoring.rows(run, NUMBERS)
    scores = {"n": len(rows)}
    for name in NUMBERS:
        scores[name] = float(np.mean([int(row[name]) for row in rows]))
    if cfg.dataset.name == "bsds500" and not cfg.dataset.path:
        scores |= against_ground_truth(cfg, run, [row["name"] for row in rows])
    scoring.write(run, scores, PROTOCOL)


def against_ground_truth(cfg: Config, run: Run, names: list[str]) -> dict:
    """Overlaps of the run's segments, and of the baseline's, with the human segmentations."""
    dataset = segmentations.load(cfg.dataset.name, cfg.dataset.split, cfg.dataset.root)
    stems = [Path(path).stem for path in dataset.paths]
    overlaps: dict[str, list] = {"run": [], "baseline": []}
    for name in names:
        ground_truths = dataset.ground_truths(stems.index(name))
        try:
            labels = np.load(run.path / "segments" / name / "labels.npy", allow_pickle=False)
            with np.load(run.path / "baseline" / f"{name}.npz", allow_pickle=False) as file:
                overlaps["baseline"].append(bsds.overlaps(file["labels"], ground_truths))
            overlaps["run"].append(bsds.overlaps(labels, ground_truths))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{run.path}: labels of {name}: {error}: run pred.py first") from None
    baseline = {"name": "Felzenszwalb, scale 500"} | bsds.pool(overlaps["baseline"])
    return bsds.pool(overlaps["run"]) | {"baseline": baseline}


if __name__ == "__main__":
    cli.main(main)
