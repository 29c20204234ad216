"""A map of all test images of a run: python -m clusterloss_tf.tsne RUN [--limit N] [--seed S]

images/tsne.png has a dot and images/tsne_mosaic.png a thumbnail an image. By scikit-learn, or by
openTSNE where it is installed, which is faster for many images.
"""

import logging

import numpy as np

from clusterloss_tf import config, pictures, pred
from common import UserError, cli

log = logging.getLogger("clusterloss_tf.tsne")


def main() -> None:
    cfg, run, args = cli.open_run(
        config.Config,
        __file__,
        "Draw a map of the test images of a run.",
        limit={"type": int, "help": "so many images, chosen at random; default: all"},
        seed={"type": int, "default": 0, "help": "of the map; default 0"},
    )
    if args.limit is not None and args.limit < 2:
        raise UserError(f"--limit is {args.limit}: expected 2 or more")
    found = pred.load_part(cfg, run, "test")
    embeddings = pred.embed(pred.load(cfg, run), found.images)
    some = np.sort(np.random.default_rng(args.seed).permutation(len(embeddings))[: args.limit])
    places = pictures.tsne(embeddings[some], args.seed)
    names = [found.classes[label] for label in found.labels[some]]
    pictures.write_map(run.images, pictures.to_rgb(found.images[some]), places, names)
    log.info("%d images: %s", len(some), run.images / "tsne.png")


if __name__ == "__main__":
    cli.main(main)
