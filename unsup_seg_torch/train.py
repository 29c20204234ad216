"""Trains W-Net, Segmenter or DINO: python unsup_seg_torch/train.py --config cpu.yml

Inside the folder also: python -m train --model=segmenter --batch-size=16 --epochs=30
The training loops are in wnet/train.py, segmenter/train.py and dino/train.py.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

from common import cli
from unsup_seg_torch import config


def main() -> None:
    sys.argv[1:] = config.expand_short_options(sys.argv[1:])
    cfg, run = cli.start(config.CONFIGS, __file__, config.DEFAULTS)
    with run:  # W-Net does not import timm, which takes seconds
        if cfg.model.name == "wnet":
            from unsup_seg_torch.wnet import train as wnet

            wnet.train(cfg, run)
        elif cfg.model.name == "segmenter":
            from unsup_seg_torch.segmenter import train as segmenter

            segmenter.train(cfg, run)
        else:
            from unsup_seg_torch.dino import train as dino

            dino.train(cfg, run)


if __name__ == "__main__":
    cli.main(main)
