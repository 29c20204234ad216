"""Of this suite: no GPU, and TensorFlow without its greeting."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what is bit for bit the same is so on the CPU
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
