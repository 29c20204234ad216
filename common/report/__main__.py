"""python -m common.report RUN"""

from common import cli
from common.report import pages

if __name__ == "__main__":
    cli.main(pages.main)
