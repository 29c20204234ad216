import numpy as np
import pytest
import torch

from deepcluster_torch.data.batches import batches


def numbered(n):
    """Images (n, 2, 3, 1) whose pixels are their index."""
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 2, 3, 1))


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (12, 4), (7, 2), (9, 4), (3, 8), (2, 2)])
def test_batches_are_in_order_and_have_two_images_or_more(n, batch_size):
    seen = [indices.tolist() for _, indices in batches(numbered(n), batch_size)]
    assert sum(seen, []) == list(range(n)) and min(map(len, seen)) >= 2


def test_a_single_image_is_a_batch():
    assert len(list(batches(numbered(1), 4))) == 1


@pytest.mark.parametrize("first", [0, 2, 3])
def test_images_come_with_their_index_in_the_given_order(first):
    order = torch.tensor([4, 4, 0, 9, 7, 1, 1, 2, 4])
    seen = []
    for images, indices in batches(numbered(10), 2, order, first):
        assert images.shape[1:] == (1, 2, 3) and images.dtype == torch.uint8
        assert torch.equal(images[:, 0, 0, 0].long(), indices)
        seen += indices.tolist()
    assert seen == order[2 * first :].tolist()


def test_batches_are_copies_with_channels_last_in_memory(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 256, (11, 8, 8, 3), np.uint8)
    pixels.tofile(tmp_path / "pixels")
    mapped = np.memmap(tmp_path / "pixels", np.uint8, "r", shape=pixels.shape)
    images, _ = next(batches(mapped, 4))
    assert images.is_contiguous(memory_format=torch.channels_last)
    images[:] = 0
    assert mapped.min() > 0
