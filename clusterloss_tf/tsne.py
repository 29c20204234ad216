"""t-SNE maps of the test images of a run: python -m clusterloss_tf.tsne RUN [--limit N] [--seed S]

images/tsne.png shows points, images/tsne_mosaic.png thumbnails. Uses scikit-learn, or openTSNE,
which is faster for many images, if it is installed.
"""

import logging

import numpy as np

from clusterloss_tf import config, figures, pred
from common import UserError, cli, images

log = logging.getLogger("clusterloss_tf.tsne")


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Draw t-SNE maps of the test images of a run.",
        limit={"type": int, "help": "number of images, chosen at random (default: all)"},
        seed={"type": int, "default": 0, "help": "random seed (default: 0)"},
    )
    if args.limit is not None and args.limit < 2:
        raise UserError(f"--limit is {args.limit}: expected 2 or more")
    dataset = pred.load_part(cfg, run, "test")
    embeddings = pred.embed(pred.load(cfg, run), dataset.images)
    rows = np.sort(np.random.default_rng(args.seed).permutation(len(embeddings))[: args.limit])
    points = figures.tsne(embeddings[rows], args.seed)
    names = [dataset.classes[label] for label in dataset.labels[rows]]
    figures.write_map(run.images, images.to_channels(dataset.images[rows], 3), points, names)
    log.info("%d images: %s", len(rows), run.images / "tsne.png")


if __name__ == "__main__":
    cli.main(main)
