"""Scores a config and baselines against human segmentations, in several processes, resumable.

python -m dfc_tf.evaluate --benchmark bsds500 --split val [--config fast.yml] [--out DIR]

The overlaps of each image are saved as soon as they are known; a second call continues with the
missing ones. The table is logged and written to OUT/table.csv; OUT is printed to stdout.
"""

import argparse
import csv
import dataclasses
import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import UserError, bsds, cli, duplicates
from common.bsds.superpixels import felzenszwalb
from common.config import load_config
from common.datasets import segmentations
from dfc_tf import config, data, regions

log = logging.getLogger("dfc_tf.benchmark")

COLUMNS = ["method", "images", "all", "fine", "coarse", "mean", "segments", "seconds"]


def main() -> None:
    args = _arguments()
    paper = Path(__file__).resolve().parent
    cfg = load_config(config.Config, __file__, args.config)
    dataset = segmentations.load(args.benchmark, args.split, args.root)
    stems = [Path(path).stem for path in dataset.paths[: args.limit]]
    out = Path(args.out or paper / "runs" / "benchmark" / f"{args.benchmark}_{args.split or 'all'}")
    method = Path(args.config).stem
    _write_config(out / method, cfg)
    names = [method] if args.only else [*BASELINES, method]
    tasks = [
        (name, i, out / name / f"{stem}.json") for name in names for i, stem in enumerate(stems)
    ]
    missing = [task for task in tasks if not task[2].exists()]
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(args.threads)
    setup = (cfg, args.benchmark, args.split, args.root)
    with multiprocessing.get_context("spawn").Pool(args.processes, _set_up, setup) as pool:
        scored = pool.imap_unordered(_score, missing)
        for _ in tqdm(scored, "segmenting", len(missing), unit="image", disable=None):
            pass
    rows = [_row(name, [task[2] for task in tasks if task[0] == name]) for name in names]
    with open(out / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]:
        log.info("%-26s" + " %9s" * 7, *(row[column] for column in COLUMNS))
    print(out)  # noqa: T201


def _arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = cli.Parser(prog="python -m dfc_tf.evaluate", description=__doc__, formatter_class=raw)

    def add(name: str, about: str, **keywords: object) -> None:
        parser.add_argument(f"--{name}", help=about, **keywords)

    n_processes = os.cpu_count()
    add(
        "benchmark",
        "dataset with human segmentations (required)",
        choices=["bsds500"],
        required=True,
    )
    add("split", "train, val or test (default: val)", default="val")
    add("config", "name of a file in configs/, or a path (default: fast.yml)", default="fast.yml")
    add("root", "folder of the datasets (default: the variable DATA_ROOT, else data/)")
    add("out", "output folder (default: dfc_tf/runs/benchmark/DATASET_SPLIT)")
    add("only", "skip the baselines (default: score them, too)", action="store_true")
    add("limit", "number of images, the first ones (default: all)", type=int)
    add("processes", f"processes (default: {n_processes}, the CPUs)", type=int, default=n_processes)
    add("threads", "threads per process (default: 1)", type=int, default=1)
    args = parser.parse_args()
    cli.require_positive(args, "limit", "processes", "threads")
    return args


def _write_config(folder: Path, cfg: config.Config) -> None:
    """Writes the config beside its results; raises UserError if it differs from the saved one."""
    plain = json.dumps(dataclasses.asdict(cfg), indent=1)
    path = folder / "config.json"
    if path.exists() and path.read_text() != plain:
        raise UserError(f"{folder} has results of another config: move it away, or pass --out")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(plain)


def _set_up(cfg: config.Config, name: str, split: str, root: str | None) -> None:
    """Globals of a worker process: the dataset, and one network for all of its images."""
    global _cfg, _dataset, _state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the pool terminates its workers
    _cfg, _dataset, _state = cfg, segmentations.load(name, split, root), None


def _score(task: tuple[str, int, Path]) -> None:
    name, i, path = task
    image = data.load(_dataset.paths[i]).image
    began = time.perf_counter()
    labels = BASELINES.get(name, _train)(image)
    seconds = time.perf_counter() - began
    overlaps = bsds.overlaps(labels, _dataset.ground_truths(i))
    result = {
        "seconds": round(seconds, 3),
        "segments": int(bsds.components(labels).max()) + 1,
        "overlaps": overlaps,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result))
    temporary.replace(path)


def _train(image: np.ndarray) -> np.ndarray:
    """The segments of a network trained on the image."""
    from dfc_tf import train

    global _state
    if _state is None:
        _state = train.State(_cfg, image.shape[2])
    labels, _ = train.fit(_cfg, _state, data.Sample(image))
    return regions.postprocess(labels, image, _cfg.model)


def _k_means(k: int) -> Callable[[np.ndarray], np.ndarray]:
    """k-means of the colors of the pixels, in [0, 1]."""

    def segment(image: np.ndarray) -> np.ndarray:
        from sklearn.cluster import KMeans

        colors = image.reshape(-1, image.shape[2])
        with duplicates.without_kmeans_warning():  # images with fewer than k colors
            labels = KMeans(k, n_init=1, random_state=0).fit_predict(colors)
        return labels.reshape(image.shape[:2])

    return segment


def _felzenszwalb(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: felzenszwalb(image, scale)


def _blank(image: np.ndarray) -> np.ndarray:
    return np.zeros(image.shape[:2], np.int64)


BASELINES = {
    "blank": _blank,
    "k-means 2": _k_means(2),
    "k-means 17": _k_means(17),
    "Felzenszwalb 100": _felzenszwalb(100),
    "Felzenszwalb 500": _felzenszwalb(500),
}


def _row(name: str, paths: list[Path]) -> dict:
    results = [json.loads(path.read_text()) for path in paths]
    scores = bsds.pool([result["overlaps"] for result in results])
    row = {key: f"{value:.4f}" for key, value in scores.items()}
    means = {key: float(np.mean([result[key] for result in results])) for key in COLUMNS[6:]}
    row |= {"segments": f"{means['segments']:.1f}", "seconds": f"{means['seconds']:.2f}"}
    return {"method": name, "images": len(results)} | row


if __name__ == "__main__":
    cli.main(main)
