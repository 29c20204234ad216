"""Which device TensorFlow computes on."""

import logging
import os

from common.tf import tf

log = logging.getLogger(__name__)


def device_name() -> str:
    """ "GPU" or "CPU"; logs one line if CUDA_VISIBLE_DEVICES names a GPU that is not there."""
    if tf.config.list_physical_devices("GPU"):
        return "GPU"
    name = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if name not in ("", "-1"):
        log.info("CUDA=%s: no such GPU here, using the CPU", name)
    return "CPU"
