"""Same as pred.py but fails without a GPU; kept for the original command line."""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import startup

startup.prepare(__name__, __file__)

from common import cli
from common.pytorch.device import require_cuda
from deepcluster_torch import pred


def main() -> None:
    require_cuda()
    pred.main()


if __name__ == "__main__":
    cli.main(main)
