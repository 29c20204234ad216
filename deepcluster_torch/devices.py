"""What a run computes on, and in which precision."""

import logging
import os

import torch
from torch import nn

from common import UserError
from deepcluster_torch import config

log = logging.getLogger("deepcluster_torch.devices")


def device() -> torch.device:
    """The first visible GPU, else the CPU, with one line where CUDA_VISIBLE_DEVICES is set."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if name not in ("", "-1"):
        log.info("CUDA=%s: no such GPU here, going on with the CPU", name)
    return torch.device("cpu")


def require_cuda() -> None:
    """Raises UserError where there is no GPU."""
    if not torch.cuda.is_available():
        raise UserError("no GPU is to be seen: train.py and pred.py do without one")


def precision(name: str, device: torch.device) -> torch.dtype:
    """What convolutions compute in; "auto" is bfloat16 where the processor has it, else float32."""
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities()
        fast = known.get("avx512_bf16", False) or known.get("amx_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def autocast(cfg: config.Training, device: torch.device) -> torch.autocast:
    """The context in which the network is to run."""
    dtype = precision(cfg.precision, device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def lay_out(net: nn.Module) -> nn.Module:
    """Weights of convolutions with channels last in memory, which is the fastest, where it is safe.

    With fewer channels than a vector holds the gradients on the CPU write past their end (seen with
    4 channels in torch 2.14.1: the process aborts).
    """
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    if all(each.out_channels % 8 == 0 for each in convolutions):
        for each in convolutions:
            each.to(memory_format=torch.channels_last)
    return net
