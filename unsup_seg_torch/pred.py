"""Segments images: python unsup_seg_torch/pred.py RUN [--input FILE_OR_FOLDER] [--out DIR]

The frames of a video, a folder of them or a file, also become an animation. Runs of Segmenter and
DINO also have: pred.py RUN --input video.mp4 --attention, or --segments 6
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import cli
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
    if cfg.model.name == "wnet":  # W-Net does not import timm, which takes seconds
        from unsup_seg_torch.wnet import pred as wnet

        wnet.predict(cfg, run, args)
    elif cfg.model.name == "segmenter":
        from unsup_seg_torch.segmenter import pred as segmenter

        segmenter.predict(cfg, run, args)
    else:
        from unsup_seg_torch.dino import pred as dino

        dino.predict(cfg, run, args)


if __name__ == "__main__":
    cli.main(main)
