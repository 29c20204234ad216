"""The suite runs on the CPU, where results are bit-identical."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
