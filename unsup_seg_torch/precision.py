"""In which numbers a transformer computes."""

import torch
from torch import nn


def autocast(name: str, device: torch.device) -> torch.autocast:
    """The context of a step; "auto" is bfloat16 where the processor has it, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=is_bfloat16(name, device))


def is_bfloat16(name: str, device: torch.device) -> bool:
    return name == "bfloat16" or (name == "auto" and has_bfloat16(device))


def prepare(net: nn.Module, name: str, device: torch.device) -> None:
    """Writes a network's attention out as products of matrices where it learns faster so.

    On a CPU in bfloat16 the gradient of PyTorch's fused attention takes longer than all the rest.
    """
    if device.type == "cpu" and is_bfloat16(name, device):
        for module in net.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False


def has_bfloat16(device: torch.device) -> bool:
    """Whether its processor multiplies bfloat16 itself: an emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
