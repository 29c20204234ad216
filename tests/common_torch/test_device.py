import logging

import pytest
import torch

from common import UserError
from common.pytorch import device


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("visible", "is_logged"), [("0", True), ("3", True), ("", False), ("-1", False)]
)
def test_missing_gpu_is_logged_if_asked_for(no_gpu, monkeypatch, caplog, visible, is_logged):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with caplog.at_level(logging.INFO):
        assert device.select_device() == torch.device("cpu")
    assert caplog.messages == [f"CUDA={visible}: no such GPU here, using the CPU"] * is_logged


def test_unset_variable_is_not_logged(no_gpu, monkeypatch, caplog):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with caplog.at_level(logging.INFO):
        assert device.select_device() == torch.device("cpu")
    assert caplog.messages == []


def test_visible_gpu_is_selected(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.select_device() == torch.device("cuda")
    device.require_cuda()


def test_require_cuda_refuses_a_machine_without_gpu(no_gpu):
    with pytest.raises(UserError, match="no CUDA GPU found"):
        device.require_cuda()


@pytest.mark.parametrize(
    ("n_values", "variable", "expected"),
    [(1000, None, 1), (10**9, None, 3), (1000, "3", 3)],  # small, large, the user's choice
)
def test_small_work_has_one_thread_unless_the_user_chose(monkeypatch, n_values, variable, expected):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        device.limit_threads(n_values)
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
