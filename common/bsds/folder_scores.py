"""Scores a folder of segmentations against those of several human annotators.

python -m common.bsds --pred DIR --gt DIR --json OUT

pred: for each image NAME.mat with a cell `segs` or a contour map `ucm2`, NAME.npy with labels
(scales, h, w), or NAME.png with one label per pixel; gt: NAME.mat in the format of BSDS. With
--humans instead of --pred, each annotator is scored against the others. stdout has one line, OUT.
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

log = logging.getLogger("common.bsds")

PROTOCOL = (
    "BSDS: covering pooled over images and annotators; PRI and VI (bits) mean over annotators, then"
    " images; boundary F at 0.0075 of the diagonal, one to one; ODS one scale for all, OIS each its"
    " best"
)
HUMANS = "; each annotator against the others of the image"


def main() -> None:
    args = _arguments()
    out = Path(args.json).absolute()
    _check_writable(out)
    truths = label_maps.find(args.gt, (".mat",))
    chosen = {} if args.humans else _pairs(args.pred, truths, args.partial)
    tasks = [
        Task(name, chosen.get(name), truth, args.thresholds, not args.regions_only)
        for name, truth in truths.items()
        if args.humans or name in chosen
    ]
    found = score(tasks, args.processes)
    scores = bsds.summary([one for image in found for one in image])
    scores["n"] = len(tasks)
    scores["n_scales"] = len(found[0][0].regions.covered)
    scores["protocol"] = PROTOCOL + HUMANS * args.humans
    scores["images"] = {
        task.name: {
            key: round(value, 6)
            for key, value in bsds.summary(image).items()
            if key in ("covering_ois", "pri_ois", "vi_ois", "f_ois")
        }
        for task, image in zip(tasks, found, strict=True)
    }
    half = out.with_name(out.name + ".tmp")
    half.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    half.replace(out)
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
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--pred", metavar="DIR", help="segmentations: .mat, .npy or .png")
    which.add_argument("--humans", action="store_true", help="score the annotators instead")
    parser.add_argument("--gt", metavar="DIR", required=True, help="BSDS's .mat files")
    parser.add_argument("--json", metavar="OUT", required=True, help="file of the scores")
    parser.add_argument("--partial", action="store_true", help="leave images without --pred out")
    parser.add_argument("--regions-only", action="store_true", help="no boundaries: much faster")
    parser.add_argument("--thresholds", type=int, default=99, help="of contour maps; default 99")
    parser.add_argument("--processes", type=int, default=n_cores(), help="default: the cores")
    args = parser.parse_args()
    for name in ("thresholds", "processes"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}: expected 1 or more")
    return args


def n_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_writable(out: Path) -> None:
    """Makes the folder of the scores, before hours of work are lost."""
    if out.is_dir():
        raise UserError(f"--json {out} is a folder: expected the name of a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--json {out}: {error.strerror.lower()}") from None
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"--json {out}: {out.parent} is not writable")


def _pairs(pred: str, truths: dict[str, Path], partial: bool) -> dict[str, Path]:
    found = label_maps.find(pred)
    both = {name: path for name, path in found.items() if name in truths}
    missing = [name for name in truths if name not in found]
    extra = [name for name in found if name not in truths]
    if not both or missing and not partial:
        raise UserError(
            f"{pred} has segmentations of {len(both)} of the {len(truths)} images of --gt, not of "
            f"{missing[0]}: add them" + ", or leave them out with --partial" * bool(both)
        )
    if extra:
        log.warning("%d files have no ground truth and are left out: %s", len(extra), extra[0])
    if missing:
        log.warning("%d images of --gt have no segmentation and are left out", len(missing))
    return both


@dataclasses.dataclass(frozen=True)
class Task:
    """One image to score; no prediction: each of its annotators against the others."""

    name: str
    prediction: Path | None
    truth: Path
    n_thresholds: int
    with_boundaries: bool


def score(tasks: Sequence[Task], n_processes: int) -> list[list[bsds.ImageCounts]]:
    """What each image brings, one entry, or one for each of its annotators; raises UserError."""
    found = each(_score, tasks, n_processes, "scoring")
    n_scales = {
        len(one.regions.covered): task for task, (one, *_) in zip(tasks, found, strict=True)
    }
    if len(n_scales) > 1:
        (n, task), (other, another) = list(n_scales.items())[:2]
        raise UserError(
            f"{task.prediction} has {n} scales and {another.prediction} {other}: "
            "one number for all images was expected"
        )
    return found


def each(
    function: Callable[[Any], Any], tasks: Sequence[Any], n_processes: int, title: str
) -> list[Any]:
    """function of every task in order, in up to n_processes processes, with a bar on terminals."""
    from tqdm import tqdm

    bar = {"desc": title, "total": len(tasks), "unit": "image", "disable": None}
    if n_processes == 1 or len(tasks) == 1:
        return list(tqdm(map(function, tasks), **bar))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each process
    n_processes = min(n_processes, len(tasks))
    with multiprocessing.get_context("spawn").Pool(n_processes, _begin) as pool:
        return list(tqdm(pool.imap(function, tasks), **bar))


def _begin() -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent ends it


def _score(task: Task) -> list[bsds.ImageCounts]:
    truths = label_maps.ground_truths(task.truth)
    if task.prediction is None:
        return leave_one_out(task.truth, truths, task.with_boundaries)
    shape = truths.labels[0].shape
    found = label_maps.prediction(task.prediction, shape, task.n_thresholds)
    return [
        bsds.per_image_counts(
            found.labels, truths.labels, task.with_boundaries, found.edges, truths.edges
        )
    ]


def leave_one_out(
    path: Path, truths: label_maps.Scales, with_boundaries: bool
) -> list[bsds.ImageCounts]:
    """Each annotator of one image against the others; path: where they are from, for the error."""
    n = len(truths.labels)
    if n < 2:
        raise UserError(f"{path} has one annotator: two or more were expected")
    found = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        labels, edges = ([maps[j] for j in others] for maps in (truths.labels, truths.edges))
        own = [truths.labels[i]], [truths.edges[i]]
        found.append(bsds.per_image_counts(own[0], labels, with_boundaries, own[1], edges))
    return found
