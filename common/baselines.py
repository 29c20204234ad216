"""python -m common.baselines: scores segmentation baselines on BSDS500."""

from common import cli
from common.bsds.baselines import main

if __name__ == "__main__":
    cli.main(main)
