"""Selects the device that PyTorch computes on."""

import logging
import os

import torch

from common import UserError

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


def require_cuda() -> None:
    """Raises UserError without a CUDA GPU."""
    if not torch.cuda.is_available():
        raise UserError("no CUDA GPU found: use train.py and pred.py, which also run on a CPU")
