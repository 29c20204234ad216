"""In which numbers a transformer computes."""

import torch


def autocast(name: str, device: torch.device) -> torch.autocast:
    """The context of a step; "auto" is bfloat16 where the processor has it, else float32."""
    dtype = torch.float32 if name == "float32" else torch.bfloat16
    if name == "auto" and not has_bfloat16(device):
        dtype = torch.float32
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def has_bfloat16(device: torch.device) -> bool:
    """Whether its processor multiplies bfloat16 itself: an emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
