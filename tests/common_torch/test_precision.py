import pytest
import torch

from common.pytorch import precision

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["bfloat16", "no bfloat16"])
def is_supported(request, monkeypatch):
    """Whether the CPU claims to support bfloat16."""
    capabilities = {"avx512_bf16": False, "amx_bf16": request.param}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    return request.param


def test_auto_is_bfloat16_if_supported(is_supported):
    assert precision.has_bfloat16(CPU) == is_supported
    expected = torch.bfloat16 if is_supported else torch.float32
    assert precision.compute_dtype("auto", CPU) == expected


def test_explicit_precision_does_not_depend_on_support(is_supported):
    assert precision.compute_dtype("float32", CPU) == torch.float32
    assert precision.compute_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize("name", ["float32", "bfloat16", "auto"])
def test_autocast_computes_in_the_dtype(is_supported, name):
    a = torch.ones(2, 2)
    with precision.autocast(name, CPU):
        assert (a @ a).dtype == precision.compute_dtype(name, CPU)
    assert (a @ a).dtype == torch.float32


def test_gpu_must_support_bfloat16_without_emulation(monkeypatch):
    def is_bf16_supported(including_emulation):
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert not precision.has_bfloat16(torch.device("cuda"))
