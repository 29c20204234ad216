"""The original command line: trains on CIFAR-100, then extracts the embeddings of the test images.

python metric_learning_densenet.py [options of train.py]

Runs train.py with the settings below, which are meant to be edited, and extract.py, which writes
RUN/features_test/features.npy and labels.npy. Options on the command line take precedence; with
--config or --resume only they count.
"""

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from clusterloss_tf import extract, train
from common import cli

TRAINING = True
FEATURE_EXTRACTION = True  # alone: of the newest run, or of a run named on the command line
CONFIG = "cifar100.yml"  # or cifar10.yml, or imagenet32.yml: data/README.md says how to get it
TRAIN_PARAMS = {"batch_size": 128, "n_epochs": 100, "lr": 0.1, "weight_decay": 1e-4, "gamma": 64.0}
DENSENET_PARAMS = {"depth": 40, "growth": 12, "bottleneck": False, "dropout": 0.0, "dim": 64}


def arguments(given: list[str]) -> list[str]:
    """The command line of train.py: the settings above, then the options `given`."""
    if any(word.split("=")[0] in ("--config", "--resume") for word in given):
        return given
    settings = {"config": CONFIG}
    settings |= {f"training.{key}": value for key, value in TRAIN_PARAMS.items()}
    settings |= {f"model.{key}": value for key, value in DENSENET_PARAMS.items()}
    return [f"--{key}={value}" for key, value in settings.items()] + given


def main() -> None:
    if TRAINING:
        sys.argv[1:] = arguments(sys.argv[1:])
        cfg, run = train.main()
        if FEATURE_EXTRACTION:
            extract.write(cfg, run)
    elif FEATURE_EXTRACTION:
        extract.main()


if __name__ == "__main__":
    cli.main(main)
