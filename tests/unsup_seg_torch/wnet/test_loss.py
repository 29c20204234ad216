"""The soft normalized cut against its formula, its gradient, and on cuts that are known."""

import numpy as np
import pytest
import torch

from tests.unsup_seg_torch import reference
from unsup_seg_torch import SoftNCutLoss
from unsup_seg_torch.wnet import loss


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def random_probabilities(generator, *shape):
    """(b, k, h, w) float64, summing to 1 over k."""
    return torch.softmax(2 * torch.randn(shape, generator=generator, dtype=torch.float64), 1)


def random_images(generator, *shape):
    """Colors similar enough for weights of all sizes."""
    return 0.5 + 0.1 * torch.rand(shape, generator=generator, dtype=torch.float64)


def random_inputs(generator, b, k, h, w):
    return random_probabilities(generator, b, k, h, w), random_images(generator, b, 3, h, w)


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
def test_soft_ncut_equals_the_dense_formula(generator, size, options):
    probabilities, images = random_inputs(generator, 2, 4, *size)
    values = loss.soft_ncut(probabilities, images, **options)
    expected = [
        reference.soft_ncut(p.numpy(), image.numpy(), **options)
        for p, image in zip(probabilities, images, strict=True)
    ]
    np.testing.assert_allclose(values.numpy(), expected, rtol=0, atol=1e-12)


def test_soft_ncut_does_not_depend_on_the_chunk_size(generator, monkeypatch):
    probabilities, images = random_inputs(generator, 1, 3, 21, 17)
    expected = loss.soft_ncut(probabilities, images)
    monkeypatch.setattr(loss, "CHUNK", 50)
    value = loss.soft_ncut(probabilities, images)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_gradient_equals_that_of_the_plain_version(generator):
    images = random_images(generator, 2, 3, 12, 10)
    probabilities = random_probabilities(generator, 2, 5, 12, 10)
    plain, ours = (probabilities.clone().requires_grad_() for _ in range(2))
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)  # one per image
    (reference.plain_soft_ncut(plain, images) * weights).sum().backward()
    (loss.soft_ncut(ours, images) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=1e-14)


def test_gradient_equals_finite_differences(generator):
    images = random_images(generator, 2, 3, 5, 6)
    probabilities = random_probabilities(generator, 2, 3, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss.soft_ncut(p, images), probabilities)


@pytest.mark.parametrize("k", [2, 5, 20])
def test_uniform_probabilities_have_k_minus_one(generator, k):
    uniform = torch.full((1, k, 9, 9), 1 / k, dtype=torch.float64)
    value = loss.soft_ncut(uniform, random_images(generator, 1, 3, 9, 9))
    assert value.item() == pytest.approx(k - 1, abs=1e-12)


def test_empty_label_counts_one_and_has_a_finite_gradient(generator):
    probabilities = torch.zeros(1, 4, 8, 8)
    probabilities[:, 2] = 1
    probabilities.requires_grad_()
    value = loss.soft_ncut(probabilities, random_images(generator, 1, 3, 8, 8))
    value.sum().backward()
    assert value.item() == pytest.approx(3, abs=1e-5)
    assert probabilities.grad.isfinite().all()


def test_permuted_labels_have_the_same_cut(generator):
    probabilities, images = random_inputs(generator, 1, 5, 8, 9)
    permuted = probabilities[:, [3, 0, 4, 1, 2]]
    value, expected = (loss.soft_ncut(p, images).item() for p in (permuted, probabilities))
    assert value == pytest.approx(expected, abs=1e-12)


def test_module_returns_the_mean_over_the_batch(generator):
    probabilities, images = random_inputs(generator, 3, 4, 8, 9)
    each = [loss.soft_ncut(probabilities[i : i + 1], images[i : i + 1]).item() for i in range(3)]
    assert SoftNCutLoss()(probabilities, images).item() == pytest.approx(np.mean(each), abs=1e-12)


def test_module_passes_its_options_on(generator):
    probabilities, images = random_inputs(generator, 1, 3, 8, 9)
    options = {"radius": 3, "sigma_intensity": 0.1, "sigma_position": 2}
    expected = loss.soft_ncut(probabilities, images, **options).item()
    assert SoftNCutLoss(**options)(probabilities, images).item() == expected


def test_cut_along_the_edge_costs_less_than_one_across():
    images = torch.zeros(1, 3, 12, 12)
    images[..., 6:] = 1
    along, across = torch.zeros(1, 2, 12, 12), torch.zeros(1, 2, 12, 12)
    along[:, 0, :, :6] = along[:, 1, :, 6:] = 1
    across[:, 0, :6] = across[:, 1, 6:] = 1
    assert loss.soft_ncut(along, images).item() == pytest.approx(0, abs=1e-6)
    assert loss.soft_ncut(across, images).item() > 0.2


def test_half_precision_is_computed_in_float32(generator):
    probabilities, images = random_inputs(generator, 1, 3, 8, 9)
    probabilities = probabilities.float()
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
        (((1, 3, 8, 9), (2, 3, 8, 9)), "same number of images"),
        (((1, 3, 8, 9), (1, 3, 9, 8)), "of the same size"),
    ],
)
def test_arguments_of_different_shapes_are_refused(shapes, reason):
    probabilities, images = map(torch.ones, shapes)
    with pytest.raises(ValueError, match=reason):
        loss.soft_ncut(probabilities, images)


def test_swapped_arguments_are_refused(generator):
    probabilities, images = random_inputs(generator, 1, 3, 8, 9)
    with pytest.raises(ValueError, match="the order is probabilities, images"):
        loss.soft_ncut(0.2 * images, probabilities)


def test_reconstruction_does_not_depend_on_the_size():
    # differences of 0.5 everywhere: squared 0.25
    for size in (4, 9):
        decoded = torch.full((2, 3, size, size), 0.5)
        assert loss.reconstruction(decoded, torch.zeros(2, 3, size, size)).item() == 0.25
