"""Segmentations without any training, scored against BSDS500's annotators, as rows of results.csv.

python -m common.baselines --split val [--methods slic humans ...] [--limit N] >> results.csv

Each method has several scales, from fine to coarse, for ODS and OIS to choose among. The rows go to
stdout, the scores in short to stderr.
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

from common import UserError, bsds, cli, images
from common.bsds import folder_scores, hierarchy, label_maps
from common.datasets import segmentations

log = logging.getLogger("common.baselines")

COLUMNS = ("config", "seed", "commit", "metric", "value", "minutes", "machine")
COUNTS = (40, 32, 24, 16, 12, 8, 6, 4, 3, 2)  # of clusters and of superpixels
SCALES = (50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000)  # of Felzenszwalb
MIN_PIXELS = 200  # of a Felzenszwalb region
HEIGHTS = np.geomspace(0.01, 1, 20)  # at which merged regions are cut


def kmeans(image: np.ndarray) -> list[np.ndarray]:
    """k-means of colour (Lab in hundreds) and place (in diagonals): (h, w, 3) uint8 -> (h, w) each.

    The centres are those of at most 20,000 pixels, chosen by seed 0.
    """
    from sklearn.cluster import KMeans

    h, w = image.shape[:2]
    places = np.mgrid[:h, :w] / np.hypot(h, w)
    pixels = np.concatenate([lab(image), np.moveaxis(places, 0, 2)], axis=2).reshape(h * w, 5)
    chosen = pixels[np.random.default_rng(0).permutation(h * w)[:20_000]]
    return [
        KMeans(min(k, len(chosen)), n_init=1, random_state=0)
        .fit(chosen)
        .predict(pixels)
        .reshape(h, w)
        for k in COUNTS
    ]


def slic(image: np.ndarray) -> list[np.ndarray]:
    """Superpixels of Achanta et al. 2012, as scikit-image has them."""
    from skimage.segmentation import slic

    return [slic(image, n, start_label=0) for n in COUNTS]


def felzenszwalb(image: np.ndarray) -> list[np.ndarray]:
    """Graph-based regions of Felzenszwalb and Huttenlocher 2004, of MIN_PIXELS or more."""
    from skimage.segmentation import felzenszwalb

    return [felzenszwalb(image, scale, min_size=MIN_PIXELS) for scale in SCALES]


def merged(image: np.ndarray) -> np.ndarray:
    """The finest of `felzenszwalb`, joined by mean colour and contrast, cut at HEIGHTS."""
    from skimage.segmentation import felzenszwalb

    finest = felzenszwalb(image, SCALES[0], min_size=MIN_PIXELS // 4)
    colours = lab(image)
    rise, run = (np.linalg.norm(one, axis=2) for one in np.gradient(colours, axis=(0, 1)))
    return hierarchy.merge(bsds.components(finest, 4), colours, np.hypot(rise, run)).cuts(HEIGHTS)


def blank(image: np.ndarray) -> list[np.ndarray]:
    """One region."""
    return [np.zeros(image.shape[:2], np.int64)]


def lab(image: np.ndarray) -> np.ndarray:
    """Colours in hundreds: (h, w, 3) uint8 -> (h, w, 3) float64."""
    from skimage.color import rgb2lab

    return rgb2lab(image) / 100


METHODS: dict[str, Callable[[np.ndarray], list[np.ndarray] | np.ndarray]] = {
    "blank": blank,
    "kmeans_lab_xy": kmeans,
    "slic": slic,
    "felzenszwalb": felzenszwalb,
    "felzenszwalb_merged": merged,
}
HUMANS = "humans"  # leave one out


def main() -> None:
    args = parse(parser("common.baselines", __doc__, [*METHODS, HUMANS]))
    found = segmentations.load("bsds500", args.split, args.root)
    for name in args.methods:
        tasks = [
            Task(name, args, image, truth)
            for image, truth in zip(found.paths, found.ground_truth_paths, strict=True)
        ][: args.limit]
        answers = folder_scores.each(score, tasks, args.processes, name)
        evidence = [one for found, _ in answers for one in found]
        write_rows(name, "-", args, evidence, [seconds for _, seconds in answers])


def write_rows(
    name: str,
    seed: str,
    args: argparse.Namespace,
    found: list[bsds.ImageCounts],
    seconds: Sequence[float],
) -> None:
    """One method's scores: rows of results.csv on stdout, in short on stderr.

    found: of all pictures; seconds: of each one's segmentation, none where there was none.
    """
    scores = bsds.summary(found)
    minutes = f"{sum(seconds) / 60:.2f}" if any(seconds) else ""
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    for metric, value in scores.items():
        row = (name, seed, _commit(), f"{args.split}_{metric}", f"{value:.4f}", minutes)
        writer.writerow(dict(zip(COLUMNS, (*row, args.machine), strict=True)))
    sys.stdout.flush()
    keys = ("covering_ods", "covering_ois", "pri_ods", "pri_ois", "vi_ods", "vi_ois")
    keys += ("f_ods", "f_ois") if args.boundaries else ()
    short = "  ".join(f"{key} {scores[key]:.4f}" for key in keys)
    log.info("%s, %d images, %s minutes: %s", name, len(seconds), minutes or "no", short)


def parser(module: str, description: str, names: Sequence[str]) -> cli.Parser:
    """The options of this command and of those like it, which score the methods `names`."""
    parser = cli.Parser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--split", default="val", help="of BSDS500: train, val or test")
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--root", help="where data lies; default: DATA_ROOT, else data/")
    parser.add_argument("--limit", type=int, help="the first pictures only")
    parser.add_argument(
        "--regions-only", dest="boundaries", action="store_false", help="no boundaries: faster"
    )
    parser.add_argument("--machine", default=platform.machine(), help="last column of the rows")
    parser.add_argument("--processes", type=int, default=folder_scores.n_cores())
    return parser


def parse(parser: cli.Parser) -> argparse.Namespace:
    """What was given; raises UserError."""
    args = parser.parse_args()
    for name in ("limit", "processes"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}: expected 1 or more")
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
    """One picture for one method."""

    method: str
    args: argparse.Namespace
    image: str
    truth: Path


def score(task: Task) -> tuple[list[bsds.ImageCounts], float]:
    """What one picture brings, and the seconds that its segmentations took."""
    truths = label_maps.ground_truths(task.truth)
    if task.method == HUMANS:
        return folder_scores.leave_one_out(task.truth, truths, task.args.boundaries), 0.0
    image = images.load(task.image)
    began = time.perf_counter()
    scales = METHODS[task.method](image)
    seconds = time.perf_counter() - began
    found = bsds.per_image_counts(scales, truths.labels, task.args.boundaries, None, truths.edges)
    return [found], seconds
