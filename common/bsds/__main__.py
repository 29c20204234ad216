"""python -m common.bsds --pred DIR --gt DIR --json OUT"""

from common import cli
from common.bsds import folder_scores

if __name__ == "__main__":
    cli.main(folder_scores.main)
