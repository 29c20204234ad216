"""The seed's name for pred.py on a GPU, which it insists on: python pred_cuda.py RUN"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common import cli
from deepcluster_torch import devices, pred


def main() -> None:
    devices.require_cuda()
    pred.main()


if __name__ == "__main__":
    cli.main(main)
