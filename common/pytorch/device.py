"""Selects the device that PyTorch computes on."""

import logging
import os

import torch

from common import UserError

SMALL = 500_000  # values of the largest tensors of a step, below which one thread is enough

log = logging.getLogger(__name__)


def select_device() -> torch.device:
    """The first visible GPU, else the CPU.

    Logs one line if CUDA_VISIBLE_DEVICES names a GPU that does not exist.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if name not in ("", "-1"):
        log.info("CUDA=%s: no such GPU here, using the CPU", name)
    return torch.device("cpu")


def limit_threads(n_values: int) -> None:
    """Makes PyTorch use one CPU thread if the largest tensors of a step have few values.

    More threads spend their time waiting for each other: on two cores a DTI step on digits was 1.2
    times as fast with two as with one, but 3 times slower beside another busy process. The user's
    OMP_NUM_THREADS wins.
    """
    if n_values < SMALL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def require_cuda() -> None:
    """Raises UserError without a CUDA GPU."""
    if not torch.cuda.is_available():
        raise UserError("no CUDA GPU found: use train.py and pred.py, which also run on a CPU")
