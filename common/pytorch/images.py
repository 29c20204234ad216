"""Converts images from NumPy to PyTorch."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (b, h, w, c) -> float32 (b, c, h, w) in [0, 1]"""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
