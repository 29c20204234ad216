"""The floating-point type of a network: training.precision is auto, float32 or bfloat16."""

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware supports bfloat16; an emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type for a precision; "auto" is bfloat16 if the hardware supports it, else float32."""
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return getattr(torch, precision)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context to run a network in; no effect for float32."""
    enabled = compute_dtype(precision, device) != torch.float32
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
