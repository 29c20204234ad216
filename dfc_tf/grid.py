"""A grid of experiments on one image: python -m dfc_tf.grid [IMAGE] [--out DIR] [--max-side 160]

Writes OUT/sheet.png, with the image and the labels of each experiment in their mean colors, and
OUT/labels.csv; saved experiments are not repeated. OUT is printed to stdout.
"""

import argparse
import csv
import dataclasses
import logging
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from common import UserError, cli, images
from common.config import read_yaml
from dfc_tf import config, data, train

log = logging.getLogger("dfc_tf.grid")

BASE = {"model.n_blocks": 3, "training.mu": 5.0, "training.n_iterations": 500}
TILE_WIDTH, CAPTION_HEIGHT = 240, 22  # pixels, in the sheet
COLUMNS = ["experiment", "iterations", "labels", "largest_fractions", "seconds"]


def main() -> None:
    args = _arguments()
    here = Path(__file__).resolve().parent
    dataset_cfg = config.Dataset(path=args.image, max_side=args.max_side)
    dataset = data.ImageDataset(dataset_cfg)
    if len(dataset) != 1:
        raise UserError(f"{args.image} has {len(dataset)} images: expected one image")
    sample = dataset[0]
    out = Path(args.out or here / "runs" / "grid" / sample.name)
    experiments = read_yaml(here / "grid.yml")
    if args.only:
        experiments = {name: experiments[name] for name in args.only if name in experiments}
    logging.getLogger("tensorflow").setLevel("ERROR")  # warns of retracing in each experiment
    tiles, rows = [tile(sample.rgb, sample.name)], []
    for name, changes in tqdm(experiments.items(), "experiments", disable=None):
        path = out / f"{name}.npz"
        if not path.exists():
            run(experiment(dataset_cfg, changes, args.iterations), sample, path)
        with np.load(path, allow_pickle=False) as file:
            labels, seconds, n = file["labels"], float(file["seconds"]), int(file["iterations"])
        if labels.shape != sample.rgb.shape[:2]:
            raise UserError(f"{path} is of another image: move it away, or pass --out")
        fractions = np.sort(np.bincount(labels.ravel()) / labels.size)[::-1][:5]
        n_labels = len(np.unique(labels))
        segments = images.mean_colors(sample.rgb, labels)[labels]
        tiles.append(tile(segments, f"{name}: {n_labels} labels"))
        listed = " ".join(f"{fraction:.2f}" for fraction in fractions if fraction > 0)
        rows.append([name, n, n_labels, listed, f"{seconds:.1f}"])
        log.info("%s: %d iterations, %d labels", name, n, n_labels)
    images.save_png(out / "sheet.png", images.grid(np.stack(tiles), 4))
    with open(out / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    print(out)  # noqa: T201


def _arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = cli.Parser(prog="python -m dfc_tf.grid", description=__doc__, formatter_class=raw)
    parser.add_argument("image", nargs="?", help="image file (default: the coffee photograph)")
    parser.add_argument("--out", help="output folder (default: dfc_tf/runs/grid/NAME)")
    about = "longest side in pixels, larger images are reduced to it (default: 160)"
    parser.add_argument("--max-side", type=int, default=160, help=about)
    about = "iterations per experiment (default: as in grid.yml, else 500)"
    parser.add_argument("--iterations", type=int, help=about)
    about = "names of experiments in grid.yml (default: all)"
    parser.add_argument("--only", nargs="+", metavar="NAME", help=about)
    args = parser.parse_args()
    cli.require_positive(args, "max_side", "iterations")
    return args


def experiment(
    dataset_cfg: config.Dataset, changes: dict[str, object], n_iterations: int | None
) -> config.Config:
    """BASE with the changes of an experiment in grid.yml."""
    values = BASE | changes | ({"training.n_iterations": n_iterations} if n_iterations else {})
    sections = {"model": config.Model(), "training": config.Training(max_side=None)}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections[section] = dataclasses.replace(sections[section], **{name: value})
    return config.Config(dataset_cfg, **sections)


def tile(rgb: np.ndarray, caption: str) -> np.ndarray:
    """An image (h, w, 3) uint8, enlarged to at least TILE_WIDTH, below a line of text."""
    factor = -(-TILE_WIDTH // rgb.shape[1])
    rgb = rgb.repeat(factor, 0).repeat(factor, 1)
    framed = Image.fromarray(np.pad(rgb, ((CAPTION_HEIGHT, 0), (0, 0), (0, 0))))
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(framed).text((4, 3), caption, "white", font)
    return np.asarray(framed)


def run(cfg: config.Config, sample: data.Sample, path: Path) -> None:
    """Trains and saves labels (h, w), seconds and iterations."""
    began = time.perf_counter()
    state = train.State(cfg, sample.image.shape[2])
    labels, history = train.fit(cfg, state, sample)
    seconds = time.perf_counter() - began
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name("tmp.npz")
    np.savez_compressed(temporary, labels=labels, seconds=seconds, iterations=len(history))
    temporary.replace(path)


if __name__ == "__main__":
    cli.main(main)
