"""python -m common.bsds: scores a folder of segmentations."""

from common import cli
from common.bsds import folder_scores

if __name__ == "__main__":
    cli.main(folder_scores.main)
