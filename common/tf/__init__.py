"""Code shared by the TensorFlow papers; imports TensorFlow and Keras without their start-up log.

Only `*_tf` folders may import it: TensorFlow and PyTorch crash in one process.
"""

import os

from common.silence import silence_stderr

# Read when TensorFlow is imported. A value that the user has set is kept.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

with silence_stderr():  # some lines are logged before the log level is read
    import keras
    import tensorflow as tf

__all__ = ["keras", "tf"]
