import numpy as np
import torch

from common.pytorch.images import to_tensor


def test_to_tensor_is_channels_first_in_0_to_1():
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    tensor = to_tensor(images[:, ::-1])  # not contiguous
    assert tensor.dtype == torch.float32 and tensor.shape == (2, 3, 3, 4)
    expected = images[:, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(tensor, expected)
