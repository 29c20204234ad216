"""python -m common.download [NAME]: downloads a dataset, or lists them all."""

from common import cli
from common.datasets.download import main

if __name__ == "__main__":
    cli.main(main)
