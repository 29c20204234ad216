"""Segments images: python unsup_seg_torch/pred.py RUN [--input FILE_OR_FOLDER] [--out DIR]

The frames of a video, a folder of them or a file, also become an animation. Runs of Segmenter and
DINO also have: pred.py RUN --input video.mp4 --attention, or --segments 6
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

import argparse

from common import UserError, cli
from unsup_seg_torch import config

OPTIONS = cli.NEW_IMAGES | {
    "frames": {
        "type": int,
        "metavar": "N",
        "help": "W-Net: number of images whose labels become an animation, and of frames that are "
        "read of a video (default: 40 if all images of --input have one size, else 0)",
    },
    "attention": {
        "action": "store_true",
        "help": "Segmenter and DINO, with --input: attention maps of the class token, per head "
        "(default: off)",
    },
    "segments": {
        "type": int,
        "metavar": "K",
        "help": "Segmenter and DINO, with --input: the object, and 2 to K segments, by normalized "
        "cuts of the features (default: off)",
    },
    "size": {
        "type": int,
        "default": 480,
        "metavar": "PIXELS",
        "help": "longer side in pixels at which attention is computed (default: 480)",
    },
    "mass": {
        "type": float,
        "default": 0.6,
        "metavar": "FRACTION",
        "help": "fraction of the attention that the patches of a mask contain (default: 0.6)",
    },
    "max_frames": {
        "type": int,
        "default": 1000,
        "metavar": "N",
        "help": "number of video frames, or of images of a folder, that are read (default: 1000)",
    },
}


def main() -> None:
    description = "Segment the images of a run, or new ones; show where a transformer attends."
    cfg, run, args = cli.open_run(config.CONFIGS, __file__, description, **OPTIONS)
    check_ranges(args)
    if cfg.model.name == "wnet":  # W-Net does not import timm, which takes seconds
        from unsup_seg_torch.wnet import pred as wnet

        wnet.predict(cfg, run, args)
    elif cfg.model.name == "segmenter":
        from unsup_seg_torch.segmenter import pred as segmenter

        segmenter.predict(cfg, run, args)
    else:
        from unsup_seg_torch.dino import pred as dino

        dino.predict(cfg, run, args)


def check_ranges(args: argparse.Namespace) -> None:
    """Raises UserError for a value out of range, also of an option that the model does not use."""
    cli.require_positive(args, "size", "max_frames")
    if args.frames is not None and args.frames < 0:
        raise UserError(f"--frames is {args.frames}: expected 0 or more")
    if args.segments is not None and not 2 <= args.segments <= 64:
        raise UserError(f"--segments is {args.segments}: expected 2 to 64")
    if not 0 < args.mass <= 1:  # also true for NaN
        raise UserError(f"--mass is {args.mass}: expected more than 0, up to 1")


if __name__ == "__main__":
    cli.main(main)
