"""Scores a run: python unsup_seg_torch/evaluate.py RUN [--boundaries]"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

from common import cli, scoring
from unsup_seg_torch import config
from unsup_seg_torch.dino import evaluate as dino
from unsup_seg_torch.segmenter import evaluate as segmenter
from unsup_seg_torch.wnet import evaluate as wnet

BOUNDARIES = {
    "action": "store_true",
    "help": "W-Net: also precision, recall and F of boundaries, which takes minutes (default: off)",
}


def main() -> None:
    cfg, run, args = cli.open_run(config.CONFIGS, __file__, "Score a run.", boundaries=BOUNDARIES)
    if cfg.model.name == "wnet":
        scores, protocol = wnet.evaluate(cfg, run, args.boundaries)
    elif cfg.model.name == "segmenter":
        scores, protocol = segmenter.evaluate(cfg, run)
    else:
        scores, protocol = dino.evaluate(run)
    scoring.write(run, scores, protocol)


if __name__ == "__main__":
    cli.main(main)
