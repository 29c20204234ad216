"""The soft normalised cut against its formula, its gradient, and what it is for."""

import numpy as np
import pytest
import torch

from tests.unsup_seg_torch import dense
from unsup_seg_torch import SoftNCutLoss, loss


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def maps(random, *shape):
    """Probabilities (b, k, h, w) in float64."""
    return torch.softmax(2 * torch.randn(shape, generator=random, dtype=torch.float64), 1)


def pictures(random, *shape):
    """Colours near enough for weights of all sizes."""
    return 0.5 + 0.1 * torch.rand(shape, generator=random, dtype=torch.float64)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((11, 13), {}),
        ((9, 4), {}),
        ((3, 14), {}),
        ((1, 7), {}),
        ((5, 1), {}),
        ((1, 1), {}),
        ((8, 9), {"radius": 2}),
        ((8, 9), {"radius": 1}),
        ((7, 8), {"radius": 3.5, "sigma_intensity": 0.2, "sigma_position": 2}),
    ],
)
def test_the_cut_is_that_of_the_whole_matrix(random, size, options):
    probabilities, images = maps(random, 2, 4, *size), pictures(random, 2, 3, *size)
    found = loss.soft_ncut(probabilities, images, **options)
    expected = [
        dense.soft_ncut(p.numpy(), image.numpy(), **options)
        for p, image in zip(probabilities, images, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_a_picture_of_several_chunks_has_the_cut_of_one(random, monkeypatch):
    probabilities, images = maps(random, 1, 3, 21, 17), pictures(random, 1, 3, 21, 17)
    finished_run = loss.soft_ncut(probabilities, images)
    monkeypatch.setattr(loss, "CHUNK", 50)
    torch.testing.assert_close(
        loss.soft_ncut(probabilities, images), finished_run, rtol=0, atol=1e-12
    )


def test_the_gradient_is_that_of_the_plain_version(random):
    images, probabilities = pictures(random, 2, 3, 12, 10), maps(random, 2, 5, 12, 10)
    expected, found = (probabilities.clone().requires_grad_() for _ in range(2))
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)  # each image has its own
    (dense.plain_soft_ncut(expected, images) * weights).sum().backward()
    (loss.soft_ncut(found, images) * weights).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=1e-14)


def test_the_gradient_passes_the_check_by_differences(random):
    images = pictures(random, 2, 3, 5, 6)
    probabilities = maps(random, 2, 3, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss.soft_ncut(p, images), probabilities)


@pytest.mark.parametrize("k", [2, 5, 20])
def test_a_uniform_map_has_k_minus_one(random, k):
    uniform = torch.full((1, k, 9, 9), 1 / k, dtype=torch.float64)
    found = loss.soft_ncut(uniform, pictures(random, 1, 3, 9, 9))
    assert found.item() == pytest.approx(k - 1, abs=1e-12)


def test_an_empty_label_counts_one_and_has_a_finite_gradient(random):
    probabilities = torch.zeros(1, 4, 8, 8)
    probabilities[:, 2] = 1
    probabilities.requires_grad_()
    found = loss.soft_ncut(probabilities, pictures(random, 1, 3, 8, 8))
    found.sum().backward()
    assert found.item() == pytest.approx(3, abs=1e-5)
    assert probabilities.grad.isfinite().all()


def test_labels_may_be_renamed(random):
    probabilities, images = maps(random, 1, 5, 8, 9), pictures(random, 1, 3, 8, 9)
    renamed = probabilities[:, [3, 0, 4, 1, 2]]
    found, expected = (loss.soft_ncut(p, images).item() for p in (renamed, probabilities))
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_loss_of_a_batch_is_the_mean_of_its_images(random):
    probabilities, images = maps(random, 3, 4, 8, 9), pictures(random, 3, 3, 8, 9)
    each = [loss.soft_ncut(probabilities[i : i + 1], images[i : i + 1]).item() for i in range(3)]
    assert SoftNCutLoss()(probabilities, images).item() == pytest.approx(np.mean(each), abs=1e-12)


def test_the_module_hands_its_constants_on(random):
    probabilities, images = maps(random, 1, 3, 8, 9), pictures(random, 1, 3, 8, 9)
    constants = {"radius": 3, "sigma_intensity": 0.1, "sigma_position": 2}
    expected = loss.soft_ncut(probabilities, images, **constants).item()
    assert SoftNCutLoss(**constants)(probabilities, images).item() == expected


def test_a_cut_along_the_edge_costs_less_than_one_across():
    images = torch.zeros(1, 3, 12, 12)
    images[..., 6:] = 1
    along, across = torch.zeros(1, 2, 12, 12), torch.zeros(1, 2, 12, 12)
    along[:, 0, :, :6] = along[:, 1, :, 6:] = 1
    across[:, 0, :6] = across[:, 1, 6:] = 1
    assert loss.soft_ncut(along, images).item() == pytest.approx(0, abs=1e-6)
    assert loss.soft_ncut(across, images).item() > 0.2


def test_half_precision_is_reckoned_in_float32(random):
    probabilities, images = maps(random, 1, 3, 8, 9).float(), pictures(random, 1, 3, 8, 9)
    exact = loss.soft_ncut(probabilities, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss.soft_ncut(probabilities, images), exact)
        half = loss.soft_ncut(probabilities.bfloat16(), images)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=0.02)  # bfloat16 has 8 bits


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        (((3, 8, 9), (3, 8, 9)), "expected"),
        (((1, 3, 8, 9), (2, 3, 8, 9)), "as many images"),
        (((1, 3, 8, 9), (1, 3, 9, 8)), "of the same size"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(shapes, reason):
    probabilities, images = map(torch.ones, shapes)
    with pytest.raises(ValueError, match=reason):
        loss.soft_ncut(probabilities, images)


def test_swapped_arguments_are_refused(random):
    probabilities, images = maps(random, 1, 3, 8, 9), 0.2 * pictures(random, 1, 3, 8, 9)
    with pytest.raises(ValueError, match="the order is probabilities, images"):
        loss.soft_ncut(images, probabilities)


def test_the_reconstruction_does_not_depend_on_the_size():
    # differences of 0.5 everywhere: squared 0.25
    for size in (4, 9):
        decoded = torch.full((2, 3, size, size), 0.5)
        assert loss.reconstruction(decoded, torch.zeros(2, 3, size, size)).item() == 0.25
