"""The experiment grid on one picture: python -m dfc_tf.grid [PICTURE] [--out DIR] [--max-side 160]

Writes OUT/sheet.png, the picture and every experiment's labels in their mean colours, and
OUT/labels.csv; what is there already is not run again. The line on stdout is OUT.
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
TILE_WIDTH, CAPTION_HEIGHT = 240, 22  # pixels, of the sheet
COLUMNS = ["experiment", "iterations", "labels", "largest_shares", "seconds"]


def main() -> None:
    args = _arguments()
    here = Path(__file__).resolve().parent
    dataset = config.Dataset(path=args.picture, max_side=args.max_side)
    found = data.Pictures(dataset)
    if len(found) != 1:
        raise UserError(f"{args.picture} has {len(found)} pictures: the grid is for one")
    picture = found[0]
    out = Path(args.out or here / "runs" / "grid" / picture.name)
    experiments = read_yaml(here / "grid.yml")
    if args.only:
        experiments = {name: experiments[name] for name in args.only if name in experiments}
    logging.getLogger("tensorflow").setLevel("ERROR")  # it warns that each traces a graph
    tiles, rows = [tile(picture.rgb, picture.name)], []
    for name, changes in tqdm(experiments.items(), "experiments", disable=None):
        path = out / f"{name}.npz"
        if not path.exists():
            run(experiment(dataset, changes, args.iterations), picture, path)
        with np.load(path, allow_pickle=False) as file:
            labels, seconds, n = file["labels"], float(file["seconds"]), int(file["iterations"])
        if labels.shape != picture.rgb.shape[:2]:
            raise UserError(f"{path} is of another picture: move it away, or give --out")
        shares = np.sort(np.bincount(labels.ravel()) / labels.size)[::-1][:5]
        n_labels = len(np.unique(labels))
        regions = images.mean_colors(picture.rgb, labels)[labels]
        tiles.append(tile(regions, f"{name}: {n_labels} labels"))
        listed = " ".join(f"{share:.2f}" for share in shares if share > 0)
        rows.append([name, n, n_labels, listed, f"{seconds:.1f}"])
        log.info("%s: %d iterations, %d labels", name, n, n_labels)
    images.save_png(out / "sheet.png", images.grid(np.stack(tiles), 4))
    with open(out / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    print(out)  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dfc_tf.grid", description=__doc__)
    parser.add_argument("picture", nargs="?", help="default: the photograph of make dfc")
    parser.add_argument("--out", help="folder of the results")
    parser.add_argument("--max-side", type=int, default=160, help="pixels; the picture is reduced")
    parser.add_argument("--iterations", type=int, help="in the place of 500")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of grid.yml")
    return parser.parse_args()


def experiment(
    dataset: config.Dataset, changes: dict[str, object], n_iterations: int | None
) -> config.Config:
    """The base with the changes of one line of grid.yml."""
    values = BASE | changes | ({"training.n_iterations": n_iterations} if n_iterations else {})
    sections = {"model": config.Model(), "training": config.Training(max_side=None)}
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections[section] = dataclasses.replace(sections[section], **{name: value})
    return config.Config(dataset, **sections)


def tile(rgb: np.ndarray, caption: str) -> np.ndarray:
    """A picture (h, w, 3) uint8, enlarged to a width that can be read, under a line of text."""
    factor = -(-TILE_WIDTH // rgb.shape[1])
    rgb = rgb.repeat(factor, 0).repeat(factor, 1)
    framed = Image.fromarray(np.pad(rgb, ((CAPTION_HEIGHT, 0), (0, 0), (0, 0))))
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(framed).text((4, 3), caption, "white", font)
    return np.asarray(framed)


def run(cfg: config.Config, picture: data.Picture, path: Path) -> None:
    """Trains and writes the labels (h, w), with seconds and iterations."""
    began = time.perf_counter()
    state = train.State(cfg, picture.image.shape[2])
    labels, history = train.fit(cfg, state, picture)
    seconds = time.perf_counter() - began
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name("half.npz")
    np.savez_compressed(half, labels=labels, seconds=seconds, iterations=len(history))
    half.replace(path)


if __name__ == "__main__":
    cli.main(main)
