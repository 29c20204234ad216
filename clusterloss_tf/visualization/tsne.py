"""The original command line of ../tsne.py: python visualization/tsne.py [RUN]."""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from clusterloss_tf import tsne
from common import cli

if __name__ == "__main__":
    cli.main(tsne.main)
