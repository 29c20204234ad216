"""Methods against the human segmentations of a data set, in several processes, resumable.

python -m dfc_tf.evaluate --benchmark bsds500 --split val [--config fast.yml] [--out DIR]

Every picture's overlaps are a file as soon as they are known, so that a second call goes on with
what is missing. The table goes to stderr and to OUT/table.csv; the line on stdout is OUT.
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

from common import UserError, bsds, cli
from common.config import load_config
from common.datasets import segmentations
from dfc_tf import config, data, regions

log = logging.getLogger("dfc_tf.benchmark")

COLUMNS = ["method", "images", "all", "fine", "coarse", "mean", "segments", "seconds"]


def main() -> None:
    args = _arguments()
    paper = Path(__file__).resolve().parent
    cfg = load_config(config.Config, __file__, args.config)
    truth = segmentations.load(args.benchmark, args.split, args.root)
    chosen = range(len(truth))[: args.limit]
    out = Path(args.out or paper / "runs" / "benchmark" / f"{args.benchmark}_{args.split or 'all'}")
    ours = Path(args.config).stem
    _keep_config(out / ours, cfg)
    names = [ours] if args.only else [*BASELINES, ours]
    tasks = [
        (name, i, out / name / f"{Path(truth.paths[i]).stem}.json")
        for name in names
        for i in chosen
    ]
    missing = [task for task in tasks if not task[2].exists()]
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(args.threads)
    setup = (cfg, args.benchmark, args.split, args.root)
    with multiprocessing.get_context("spawn").Pool(args.processes, _begin, setup) as pool:
        done = pool.imap_unordered(_score, missing)
        for _ in tqdm(done, "segmenting", len(missing), unit="picture", disable=None):
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
    parser = argparse.ArgumentParser(prog="python -m dfc_tf.evaluate", description=__doc__)
    parser.add_argument("--benchmark", choices=["bsds500"], required=True)
    parser.add_argument("--split", default="val", help="train, val, test")
    parser.add_argument("--config", default="fast.yml", help="name in configs/ or path")
    parser.add_argument("--root", help="where data lies; default: DATA_ROOT, else data/")
    parser.add_argument("--out", help="folder of the results")
    parser.add_argument("--only", action="store_true", help="leave the baselines out")
    parser.add_argument("--limit", type=int, help="the first pictures only")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    return parser.parse_args()


def _keep_config(folder: Path, cfg: config.Config) -> None:
    """Writes the config beside its results; refuses to mix those of two configs."""
    plain = json.dumps(dataclasses.asdict(cfg), indent=1)
    path = folder / "config.json"
    if path.exists() and path.read_text() != plain:
        raise UserError(f"{folder} has results of another config: move it away, or give --out")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(plain)


def _begin(cfg: config.Config, name: str, split: str, root: str | None) -> None:
    """What a process has: the data set, and one network for all of its pictures."""
    global _cfg, _truth, _state
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the pool ends us
    _cfg, _truth, _state = cfg, segmentations.load(name, split, root), None


def _score(task: tuple[str, int, Path]) -> None:
    name, i, path = task
    picture = data.load(_truth.paths[i], max_side=1 << 20)
    began = time.perf_counter()
    labels = BASELINES.get(name, _ours)(picture.image)
    seconds = time.perf_counter() - began
    overlaps = bsds.overlaps(labels, _truth.ground_truths(i))
    result = {
        "seconds": round(seconds, 3),
        "segments": int(bsds.components(labels).max()) + 1,
        "overlaps": overlaps,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".tmp")
    half.write_text(json.dumps(result))
    half.replace(path)


def _ours(image: np.ndarray) -> np.ndarray:
    from dfc_tf import train

    global _state
    if _state is None:
        _state = train.State(_cfg, image.shape[2])
    labels, _ = train.fit(_cfg, _state, data.Picture("", "", image, data.to_rgb(image)))
    return regions.finish(labels, image, _cfg.model)


def _k_means(k: int) -> Callable[[np.ndarray], np.ndarray]:
    """k-means on the colours of the pixels, in [0, 1]."""

    def segment(image: np.ndarray) -> np.ndarray:
        from sklearn.cluster import KMeans

        colours = image.reshape(-1, image.shape[2])
        return KMeans(k, n_init=1, random_state=0).fit_predict(colours).reshape(image.shape[:2])

    return segment


def _felzenszwalb(scale: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: regions.felzenszwalb(image, scale)


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
