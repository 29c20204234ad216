"""The name of the device, and the log line if a GPU is missing."""

import logging

import pytest

from common.tf import tf
from common.tf.device import device_name

no_gpu = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="this machine has a GPU"
)


@no_gpu
@pytest.mark.parametrize(("visible", "n_lines"), [("", 0), ("-1", 0), ("0", 1), ("0,1", 1)])
def test_missing_gpu_is_logged_once(monkeypatch, caplog, visible, n_lines):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with caplog.at_level(logging.INFO):
        assert device_name() == "CPU"
    assert caplog.messages == [f"CUDA={visible}: no such GPU here, using the CPU"] * n_lines


@no_gpu
def test_unset_variable_logs_nothing(monkeypatch, caplog):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with caplog.at_level(logging.INFO):
        assert device_name() == "CPU"
    assert caplog.messages == []


def test_gpu_is_reported(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["/gpu:0"])
    assert device_name() == "GPU"
