"""Code that the TensorFlow papers share. Importing it imports TensorFlow, without its start-up log.

Only `*_tf` folders import it: TensorFlow and PyTorch must not meet in one process.
"""

import os

from common.silence import silence_stderr

# Has to be set before TensorFlow is imported; a user's own setting takes precedence.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up log

with silence_stderr():  # some of it is written before the level above is read
    import tensorflow as tf

__all__ = ["tf"]
