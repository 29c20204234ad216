"""Scores segmentation methods without training on BSDS500, as rows of results.csv.

python -m common.baselines --split val [--methods slic humans ...] [--limit N] >> results.csv

Each method gives segmentations at several scales, of which ODS and OIS choose the best. Prints the
rows on stdout and a summary on stderr.
"""

import argparse
import csv
import dataclasses
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from common import bsds, cli, images
from common.bsds import folder_scores, hierarchy, label_maps
from common.datasets import formats, segmentations

log = logging.getLogger(__name__)

COLUMNS = ("config", "seed", "commit", "metric", "value", "minutes", "machine")
COUNTS = (40, 32, 24, 16, 12, 8, 6, 4, 3, 2)  # numbers of clusters, or of superpixels
SCALES = (50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000)  # parameter of Felzenszwalb
MIN_PIXELS = 200  # minimum size of a Felzenszwalb region
HEIGHTS = np.geomspace(0.01, 1, 20)  # at which the hierarchy of merged regions is cut


def kmeans(image: np.ndarray) -> list[np.ndarray]:
    """k-means of color (Lab / 100) and position (in diagonals): (h, w, 3) uint8 -> (h, w) each.

    Fitted to a random sample of at most 20,000 pixels.
    """
    from sklearn.cluster import KMeans

    h, w = image.shape[:2]
    positions = np.mgrid[:h, :w] / np.hypot(h, w)
    pixels = np.concatenate([lab(image), np.moveaxis(positions, 0, 2)], axis=2).reshape(h * w, 5)
    sample = pixels[np.random.default_rng(0).permutation(h * w)[:20_000]]
    return [
        KMeans(min(k, len(sample)), n_init=1, random_state=0)
        .fit(sample)
        .predict(pixels)
        .reshape(h, w)
        for k in COUNTS
    ]


def slic(image: np.ndarray) -> list[np.ndarray]:
    """SLIC superpixels (Achanta et al. 2012)."""
    from skimage.segmentation import slic

    return [slic(image, n, start_label=0) for n in COUNTS]


def felzenszwalb(image: np.ndarray) -> list[np.ndarray]:
    """Graph-based regions of at least MIN_PIXELS (Felzenszwalb and Huttenlocher 2004)."""
    from skimage.segmentation import felzenszwalb

    return [felzenszwalb(image, scale, min_size=MIN_PIXELS) for scale in SCALES]


def merged(image: np.ndarray) -> np.ndarray:
    """Fine Felzenszwalb regions, merged by mean color and contrast, cut at HEIGHTS."""
    from skimage.segmentation import felzenszwalb

    finest = felzenszwalb(image, SCALES[0], min_size=MIN_PIXELS // 4)
    colors = lab(image)
    dy, dx = (np.linalg.norm(part, axis=2) for part in np.gradient(colors, axis=(0, 1)))
    return hierarchy.merge(bsds.components(finest, 4), colors, np.hypot(dy, dx)).cuts(HEIGHTS)


def blank(image: np.ndarray) -> list[np.ndarray]:
    """A single region."""
    return [np.zeros(image.shape[:2], np.int64)]


def lab(image: np.ndarray) -> np.ndarray:
    """CIELAB colors / 100: (h, w, 3) uint8 -> (h, w, 3) float64."""
    from skimage.color import rgb2lab

    return rgb2lab(image) / 100


METHODS: dict[str, Callable[[np.ndarray], list[np.ndarray] | np.ndarray]] = {
    "blank": blank,
    "kmeans_lab_xy": kmeans,
    "slic": slic,
    "felzenszwalb": felzenszwalb,
    "felzenszwalb_merged": merged,
}
HUMANS = "humans"  # each annotator against the others


def main() -> None:
    args = parse(parser("common.baselines", __doc__, [*METHODS, HUMANS]))
    dataset = segmentations.load("bsds500", args.split, args.root)
    for name in args.methods:
        tasks = [
            Task(name, args, image, truth)
            for image, truth in zip(dataset.paths, dataset.ground_truth_paths, strict=True)
        ][: args.limit]
        counts, seconds = zip(*folder_scores.each(score, tasks, args.processes, name), strict=True)
        write_rows(name, "-", args, [item for image in counts for item in image], seconds)


def write_rows(
    name: str,
    seed: str,
    args: argparse.Namespace,
    counts: list[bsds.ImageCounts],
    seconds: Sequence[float],
) -> None:
    """Prints the scores of a method as rows of results.csv, and logs a summary.

    counts: of all images; seconds: spent on the segmentation of each image.
    """
    scores = bsds.summary(counts)
    minutes = f"{sum(seconds) / 60:.2f}" if any(seconds) else ""
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    for metric, value in scores.items():
        row = (name, seed, _commit(), f"{args.split}_{metric}", f"{value:.4f}", minutes)
        writer.writerow(dict(zip(COLUMNS, (*row, args.machine), strict=True)))
    sys.stdout.flush()
    keys = ("covering_ods", "covering_ois", "pri_ods", "pri_ois", "vi_ods", "vi_ois")
    keys += ("f_ods", "f_ois") if args.boundaries else ()
    text = "  ".join(f"{key} {scores[key]:.4f}" for key in keys)
    log.info("%s, %d images, %s minutes: %s", name, len(seconds), minutes or "no", text)


def parser(module: str, description: str, names: Sequence[str]) -> cli.Parser:
    """The options of this command and of similar ones that score the methods `names`."""
    parser = cli.Parser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--split", default="val", help="split of BSDS500: train, val or test (default: %(default)s)"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"methods to score, of {', '.join(names)} (default: all)",
    )
    parser.add_argument("--root", **cli.ROOT)
    parser.add_argument(
        "--limit", metavar="N", type=int, help="score only the first N images (default: all)"
    )
    parser.add_argument(
        "--regions-only",
        dest="boundaries",
        action="store_false",
        help="skip the boundary scores, which take most of the time (default: no)",
    )
    parser.add_argument(
        "--machine",
        default=platform.machine(),
        help="last column of the rows, what computed them (default: %(default)s)",
    )
    folder_scores.add_processes(parser)
    return parser


def parse(parser: cli.Parser) -> argparse.Namespace:
    """The options; raises UserError."""
    args = parser.parse_args()
    cli.require_positive(args, "limit", "processes")
    return args


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    here = Path(__file__).parent
    try:
        return subprocess.run(command, cwd=here, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


@dataclasses.dataclass(frozen=True)
class Task:
    """One image for one method."""

    method: str
    args: argparse.Namespace
    image: str
    truth: Path


def score(task: Task) -> tuple[list[bsds.ImageCounts], float]:
    """The counts of an image, and the seconds spent on its segmentations."""
    truths = label_maps.ground_truths(task.truth)
    if task.method == HUMANS:
        return folder_scores.leave_one_out(task.truth, truths, task.args.boundaries), 0.0
    with formats.reading(task.truth):
        images.check_same_size(truths.labels[0].shape, task.image)
    image = images.load(task.image)
    start = time.perf_counter()
    scales = METHODS[task.method](image)
    seconds = time.perf_counter() - start
    counts = bsds.per_image_counts(scales, truths.labels, task.args.boundaries, None, truths.edges)
    return [counts], seconds
