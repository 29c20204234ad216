"""The device that TensorFlow uses."""

import logging
import os

from common.tf import tf

log = logging.getLogger(__name__)


def device_name() -> str:
    """Returns "GPU" or "CPU"; logs one line if CUDA_VISIBLE_DEVICES names a GPU that is missing."""
    if tf.config.list_physical_devices("GPU"):
        return "GPU"
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if name not in ("", "-1"):
        log.info("CUDA=%s: no such GPU here, using the CPU", name)
    return "CPU"
