import numpy as np
import torch

from unsup_seg_torch.dino import pred


def test_neighbors_are_the_most_similar_others_in_order():
    for n in (300, 4096):  # without and with faiss
        embeddings = torch.randn(n, 64, generator=torch.Generator().manual_seed(0))
        ids, cosines = pred.neighbors(embeddings, 5)
        unit = embeddings.double().numpy()
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        table = unit @ unit.T
        np.fill_diagonal(table, -2)
        expected = np.argsort(-table, axis=1)[:, :5]
        assert np.array_equal(ids, expected)
        np.testing.assert_allclose(cosines, np.take_along_axis(table, expected, 1), atol=1e-6)


def test_neighbors_of_few_images_are_all_others():
    assert sorted(pred.neighbors(torch.eye(3), 9)[0][0]) == [1, 2]
