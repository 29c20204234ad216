"""Downloads a dataset, or lists all that can be downloaded.

python -m common.download [NAME]
"""

import argparse
import logging
import sys

from common import cli
from common.datasets import download

log = logging.getLogger(__name__)


def main() -> None:
    parser = cli.Parser(
        "%(prog)s [NAME] [options]",
        prog="python -m common.download",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a dataset of data/sources.yml (default: list all)"
    )
    parser.add_argument("--root", **cli.ROOT)
    args = parser.parse_args()
    if args.name:
        root = download.data_root(args.root)
        download.get(args.name, root)
        log.info("%s is complete in %s", args.name, root)
        return
    for name, source in download.sources().items():
        sizes = [file["size"] for file in source.get("files", [])]
        size = f"{sum(sizes) / 1e6:.0f} MB" if sizes and all(sizes) else ""
        if "manual" in source:
            size = "by hand"
        sys.stdout.write(f"{name:14} {size:>8}  {source['about']}; {source['license']}\n")


if __name__ == "__main__":
    cli.main(main)
