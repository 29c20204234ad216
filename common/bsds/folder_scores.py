"""Scores a folder of segmentations against human annotators, with the BSDS protocol.

python -m common.bsds --pred DIR --gt DIR --json OUT

Writes OUT and prints its path. --pred has, for each image, NAME.mat with a cell `segs` or a contour
map `ucm2`, NAME.npy with labels (scales, h, w), or NAME.png or NAME.tif with one label per pixel;
--gt has NAME.mat in the format of BSDS.
"""

import argparse
import dataclasses
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import UserError, bsds, cli
from common.bsds import label_maps

log = logging.getLogger(__name__)

PROTOCOL = (
    "BSDS: covering pooled over images and annotators; PRI and VI (bits) averaged over annotators,"
    " then images; boundary F, one-to-one matches within 0.0075 of the diagonal; ODS: one scale"
    " for all images, OIS: the best scale of each"
)
HUMANS = "; each annotator scored against the others of the image"


def main() -> None:
    args = _arguments()
    out = Path(args.json).absolute()
    _check_writable(out)
    ground_truths = label_maps.find(args.gt, (".mat",))
    predictions = {} if args.humans else _pairs(args.pred, ground_truths, args.partial)
    tasks = [
        Task(name, predictions.get(name), truth, args.thresholds, not args.regions_only)
        for name, truth in ground_truths.items()
        if args.humans or name in predictions
    ]
    counts = score(tasks, args.processes)
    scores: dict[str, Any] = bsds.summary([item for image in counts for item in image])
    scores["n"] = len(tasks)
    scores["n_scales"] = len(counts[0][0].regions.covered)
    scores["protocol"] = PROTOCOL + HUMANS * args.humans
    scores["images"] = {
        task.name: {
            key: round(value, 6)
            for key, value in bsds.summary(image).items()
            if key in ("covering_ois", "pri_ois", "vi_ois", "f_ois")
        }
        for task, image in zip(tasks, counts, strict=True)
    }
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out)
    for key in ("covering", "pri", "vi", "f"):
        if f"{key}_ods" in scores:
            ods, ois = scores[f"{key}_ods"], scores[f"{key}_ois"]
            log.info("%-8s ODS %.4f  OIS %.4f", key, ods, ois)
    log.info("%d images, %d scales", scores["n"], scores["n_scales"])
    print(out)  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = cli.Parser(
        prog="python -m common.bsds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pred", metavar="DIR", help="folder of segmentations (required without --humans)"
    )
    source.add_argument(
        "--humans",
        action="store_true",
        help="score each annotator against the others instead of --pred (default: no)",
    )
    parser.add_argument(
        "--gt", metavar="DIR", required=True, help="folder of BSDS ground truth (required)"
    )
    parser.add_argument(
        "--json", metavar="OUT", required=True, help="file to write the scores to (required)"
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="skip images of --gt without a segmentation (default: refuse to score)",
    )
    parser.add_argument(
        "--regions-only",
        action="store_true",
        help="skip the boundary scores, which take most of the time (default: no)",
    )
    parser.add_argument(
        "--thresholds",
        metavar="N",
        type=int,
        default=99,
        help="number of heights at which contour maps are cut (default: %(default)s)",
    )
    add_processes(parser)
    args = parser.parse_args()
    cli.require_positive(args, "thresholds", "processes")
    return args


def add_processes(parser: cli.Parser) -> None:
    """Adds the option --processes."""
    parser.add_argument(
        "--processes",
        metavar="N",
        type=int,
        default=n_cores(),
        help="number of processes (default: the available CPU cores, %(default)s)",
    )


def n_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_writable(out: Path) -> None:
    """Creates the folder of the scores before hours of work are lost."""
    if out.is_dir():
        raise UserError(f"--json {out} is a folder: expected the name of a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--json {out}: {error.strerror.lower()}") from None
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"--json {out}: {out.parent} is not writable")


def _pairs(pred: str, ground_truths: dict[str, Path], partial: bool) -> dict[str, Path]:
    """The segmentations of the images that have a ground truth."""
    predictions = label_maps.find(pred)
    paired = {name: path for name, path in predictions.items() if name in ground_truths}
    missing = [name for name in ground_truths if name not in predictions]
    extra = [name for name in predictions if name not in ground_truths]
    if not paired or missing and not partial:
        raise UserError(
            f"{pred} has segmentations of {len(paired)} of the {len(ground_truths)} images of --gt,"
            f" not of {missing[0]}: add them" + ", or skip them with --partial" * bool(paired)
        )
    if extra:
        log.warning("%d files without ground truth are skipped: %s", len(extra), extra[0])
    if missing:
        log.warning("%d images of --gt have no segmentation and are skipped", len(missing))
    return paired


@dataclasses.dataclass(frozen=True)
class Task:
    """One image to score; without a prediction each annotator is scored against the others."""

    name: str
    prediction: Path | None
    truth: Path
    n_thresholds: int
    with_boundaries: bool


def score(tasks: Sequence[Task], n_processes: int) -> list[list[bsds.ImageCounts]]:
    """The counts of each image: one item, or one for each of its annotators; raises UserError."""
    counts = each(_score, tasks, n_processes, "scoring")
    n_scales = {
        len(image[0].regions.covered): task for task, image in zip(tasks, counts, strict=True)
    }
    if len(n_scales) > 1:
        (n, task), (other_n, other) = list(n_scales.items())[:2]
        raise UserError(
            f"{task.prediction} has {n} scales and {other.prediction} {other_n}: "
            "expected the same number for all images"
        )
    return counts


def each(
    function: Callable[[Any], Any], tasks: Sequence[Any], n_processes: int, title: str
) -> list[Any]:
    """The results of a function for all tasks, in order, from up to n_processes processes.

    Shows a progress bar with this title on a terminal.
    """
    from tqdm import tqdm

    bar = {"desc": title, "total": len(tasks), "unit": "image", "disable": None}
    if n_processes == 1 or len(tasks) == 1:
        return list(tqdm(map(function, tasks), **bar))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each process
    n_processes = min(n_processes, len(tasks))
    with multiprocessing.get_context("spawn").Pool(n_processes, _ignore_interrupts) as pool:
        return list(tqdm(pool.imap(function, tasks), **bar))


def _ignore_interrupts() -> None:
    """In workers: the parent handles Ctrl-C, which all processes receive."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _score(task: Task) -> list[bsds.ImageCounts]:
    truths = label_maps.ground_truths(task.truth)
    if task.prediction is None:
        return leave_one_out(task.truth, truths, task.with_boundaries)
    scales = label_maps.prediction(task.prediction, truths.labels[0].shape, task.n_thresholds)
    counts = bsds.per_image_counts(
        scales.labels, truths.labels, task.with_boundaries, scales.edges, truths.edges
    )
    return [counts]


def leave_one_out(
    path: Path, truths: label_maps.Scales, with_boundaries: bool
) -> list[bsds.ImageCounts]:
    """The counts of each annotator of an image against the others; path: their file."""
    n = len(truths.labels)
    if n < 2:
        raise UserError(f"{path} has one annotator: expected two or more")
    counts = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        labels, edges = ([maps[j] for j in others] for maps in (truths.labels, truths.edges))
        counts.append(
            bsds.per_image_counts(
                [truths.labels[i]], labels, with_boundaries, [truths.edges[i]], edges
            )
        )
    return counts
