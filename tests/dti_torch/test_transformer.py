import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import RBFInterpolator
from torch import nn
from torch.nn import functional as F

from dti_torch import config, transformer
from tests.dti_torch import oracle

NAMES = ("identity", "color", "affine", "projective", "tps", "morpho")
SHAPES = [(1, 7, 9), (3, 8, 8), (1, 28, 28), (3, 5, 12)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def build(name, shape, **options):
    cfg = config.Model(transformations=(name,), **options)
    return transformer.build(cfg, shape)[0]


def gaussian(h, w):
    """An image (1, 1, 1, h, w) of a Gaussian, nearly zero at the border."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    return torch.exp(-8 * ((x - 0.1) ** 2 + (y + 0.1) ** 2))[None, None, None]


def coordinate_image(h, w):
    """An image (1, 1, 2, h, w) of its own coordinates: warped, it shows the sampling points."""
    centers = F.affine_grid(torch.eye(2, 3)[None], [1, 1, h, w], align_corners=False)
    return centers.movedim(-1, 1)[None]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_zero_parameters_are_the_identity(name, shape):
    module, images = build(name, shape), torch.rand(2, 1, *shape)
    output = module(images, torch.zeros(2, 3, module.n_parameters))
    # 1e-5: bilinear sampling at float32 coordinates of up to 28 pixels
    torch.testing.assert_close(output, images.expand_as(output), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["tps", "projective"])
def test_legacy_identity_stretches_by_one_pixel(name):
    module = build(name, (1, 8, 9), legacy=True)
    columns = torch.arange(9.0).expand(1, 1, 1, 8, 9)
    output = module(columns, torch.zeros(1, 1, module.n_parameters))[0, 0, 0]
    # corners at +-1 are half a pixel outside: pixel j samples column j 9/8 - 1/2, clamped
    expected = (torch.arange(9) * 9 / 8 - 0.5).clamp(0, 8)
    torch.testing.assert_close(output, expected.expand(8, 9), rtol=0, atol=1e-5)


def test_legacy_morphology_has_a_quarter_of_its_weight_off_center():
    module = build("morpho", (1, 15, 15), kernel_size=7, legacy=True)
    impulse = torch.zeros(1, 1, 1, 15, 15)
    impulse[..., 7, 7] = 1
    output = module(impulse, torch.zeros(1, 1, module.n_parameters))
    # sigmoid(5) / (sigmoid(5) + 48 sigmoid(-5)) = 0.9933 / 1.3146
    assert output[..., 7, 7].item() == pytest.approx(0.7556, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_broadcast_image_equals_separate_copies(name):
    module, images = build(name, (3, 6, 7)), torch.rand(2, 1, 3, 6, 7)
    parameters = 0.2 * torch.randn(2, 4, module.n_parameters)
    together = module(images, parameters).expand(2, 4, 3, 6, 7)
    separate = module(
        images.expand(2, 4, 3, 6, 7).reshape(8, 1, 3, 6, 7), parameters.view(8, 1, -1)
    )
    torch.testing.assert_close(together.reshape(separate.shape), separate)


@pytest.mark.parametrize("options", [{}, {"padding": "zeros"}, {"legacy": True}], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES[1:])
def test_transformation_matches_the_oracle(name, shape, options):
    cfg = config.Model(transformations=(name,), kernel_size=3, **options)
    module = transformer.build(cfg, shape)[0]
    images, parameters = torch.rand(4, *shape), 0.2 * torch.randn(4, module.n_parameters)
    output = module(images[:, None], parameters[:, None])[:, 0]
    expected = oracle.transformed(name, images, parameters, cfg)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_affine_equals_affine_grid_and_grid_sample(padding):
    module = build("affine", (3, 9, 14), padding=padding)
    images, offsets = torch.rand(5, 3, 9, 14), 0.3 * torch.randn(5, 2, 3)
    grid = F.affine_grid(torch.eye(2, 3) + offsets, list(images.shape), align_corners=False)
    expected = F.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    output = module(images[:, None], offsets.view(5, 1, 6))[:, 0]
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)


def test_homography_without_perspective_is_affine():
    affine, projective = build("affine", (1, 9, 14)), build("projective", (1, 9, 14))
    images, parameters = torch.rand(5, 1, 1, 9, 14), 0.3 * torch.randn(5, 1, 6)
    output = projective(images, F.pad(parameters, (0, 3)))
    torch.testing.assert_close(output, affine(images, parameters), rtol=0, atol=1e-5)


def test_homography_with_horizon_in_the_image_is_finite():
    module = build("projective", (1, 8, 8))
    parameters = torch.zeros(2, 1, 9)
    parameters[0, 0, 6] = 8.0  # the denominator 1 + 8 x is zero at x = -1/8, a pixel center
    parameters[1, 0, 8] = -1.0  # zero everywhere
    parameters.requires_grad_()
    images = torch.rand(2, 1, 1, 8, 8, requires_grad=True)
    output = module(images, parameters)
    output.square().sum().backward()
    assert all(x.isfinite().all() for x in (output, parameters.grad, images.grad))


def test_spline_moves_each_control_point_by_its_offset():
    # 7 corner-aligned pixels per side, every second one on a point of the 4 x 4 lattice
    module = build("tps", (2, 7, 7), grid_size=4, legacy=True)
    lattice = coordinate_image(4, 4)[0, 0] * 4 / 3  # corners at +-1
    targets = 0.7 * lattice + 0.1 * torch.rand(2, 4, 4)  # within the pixel centers
    offsets = (targets - lattice).permute(1, 2, 0).reshape(1, 1, 32)
    output = module(coordinate_image(7, 7), offsets)[0, 0]
    torch.testing.assert_close(output[:, ::2, ::2], targets, rtol=0, atol=1e-5)


def test_spline_between_control_points_equals_scipy():
    h, w = 9, 12
    module, coordinates = build("tps", (2, h, w), grid_size=3), coordinate_image(h, w)
    offsets = 0.1 * torch.randn(9, 2)
    lattice = coordinate_image(3, 3)[0, 0].permute(1, 2, 0).reshape(9, 2) * 3 / 2
    spline = RBFInterpolator(lattice, lattice + offsets, kernel="thin_plate_spline", degree=1)
    expected = torch.from_numpy(spline(coordinates[0, 0].reshape(2, -1).T)).float()
    output = module(coordinates, offsets.view(1, 1, 18))[0, 0]
    edge = 1 - torch.tensor([1 / w, 1 / h])  # samples outside are clamped to the border
    expected = torch.minimum(torch.maximum(expected, -edge), edge)
    torch.testing.assert_close(output.reshape(2, -1).T, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["color", "affine", "projective", "tps"])
def test_inverse_restores_the_image(name):
    module, images = build(name, (1, 64, 80)), gaussian(64, 80)
    parameters = torch.full((1, 1, module.n_parameters), 0.1)
    output = module(images, parameters)
    back = module.inverse(output, parameters)
    inside = (..., slice(12, -12), slice(12, -12))
    assert (output - images)[inside].abs().max() > 0.08
    # two bilinear interpolations change a Gaussian of this width by less than 0.01
    assert (back - images)[inside].abs().max() < 0.01


@pytest.mark.parametrize("name", ["affine", "projective"])
def test_singular_transformation_has_a_finite_inverse(name):
    module = build(name, (1, 8, 8))
    singular = torch.zeros(1, 1, module.n_parameters)
    singular[..., 0] = -1.0  # samples x = 0 everywhere
    assert module.inverse(torch.rand(1, 1, 1, 8, 8), singular).isfinite().all()


def test_color_with_zero_gain_has_a_finite_inverse():
    parameters = torch.tensor([-1.0, 0.2]).view(1, 1, 2)
    assert build("color", (1, 4, 4)).inverse(torch.rand(1, 1, 1, 4, 4), parameters).isfinite().all()


def test_morphology_matches_the_formula_per_pixel():
    module = build("morpho", (2, 5, 6), kernel_size=3)
    images, parameters = torch.rand(1, 1, 2, 5, 6), torch.randn(1, 1, 10)
    output = module(images, parameters)[0, 0]
    slope, window = parameters[0, 0, 0].item(), module.window(parameters)[0, 0].view(3, 3).numpy()
    padded = np.pad(images[0, 0].numpy(), [(0, 0), (1, 1), (1, 1)])  # zeros count, e^0 = 1
    expected = np.empty((2, 5, 6), np.float32)
    for c in range(2):
        for y in range(5):
            for x in range(6):
                patch = padded[c, y : y + 3, x : x + 3]
                weights = window * np.exp(slope * patch)
                expected[c, y, x] = (weights * patch).sum() / weights.sum()
    np.testing.assert_allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("slope", "filter_"), [(60.0, ndimage.maximum_filter), (-60.0, ndimage.minimum_filter)]
)
def test_steep_morphology_is_dilation_or_erosion(slope, filter_):
    module = build("morpho", (1, 9, 9), kernel_size=3)
    images = torch.randint(3, (9, 9)) / 2  # levels far apart: e^(60 / 2) to 1
    parameters = torch.full((1, 1, 10), 25.0)  # a fully open window
    parameters[..., 0] = slope
    output = module(images.view(1, 1, 1, 9, 9), parameters)[0, 0, 0]
    expected = filter_(images.numpy(), size=3, mode="constant", cval=0)
    np.testing.assert_allclose(output, expected, atol=1e-4)


@pytest.mark.parametrize("slope", [-1000.0, -100.0, 100.0, 1000.0])
def test_morphology_of_any_slope_stays_in_the_range_of_the_image(slope):
    module = build("morpho", (1, 8, 8), kernel_size=5)
    images = torch.rand(1, 1, 1, 8, 8, requires_grad=True)
    parameters = F.pad(torch.randn(1, 1, 25), (1, 0), value=slope).requires_grad_()
    output = module(images, parameters)
    output.sum().backward()
    assert 0 <= output.min() and output.max() <= images.max() + 1e-5
    assert images.grad.isfinite().all() and parameters.grad.isfinite().all()


def test_closed_window_pixels_have_a_gradient():
    module = build("morpho", (1, 8, 8), kernel_size=3)
    images = torch.rand(1, 1, 1, 8, 8)
    for offset in (0.0, -2.0):  # at the identity, and fully closed
        parameters = torch.full((1, 1, 10), offset, requires_grad=True)
        module(images, parameters)[..., 2:5, 2:5].sum().backward()
        around = torch.arange(9) != 4  # alone in the window, the center has no gradient
        assert parameters.grad[0, 0, 1:][around].all()


def test_fully_closed_window_averages():
    module, images = build("morpho", (1, 8, 8), kernel_size=3), torch.rand(1, 1, 1, 8, 8)
    parameters = torch.full((1, 1, 10), -20.0, requires_grad=True)
    output = module(images, parameters * (torch.arange(10) > 0))  # the slope is 0
    output.sum().backward()
    torch.testing.assert_close(output[0], F.avg_pool2d(images[0], 3, 1, 1))
    assert parameters.grad.isfinite().all()


def test_stacked_regressors_equal_separate_mlps():
    stacked, features = transformer.Regressors(3, 5, 4), torch.randn(6, 5)
    nn.init.normal_(stacked.weights[2])
    nn.init.normal_(stacked.biases[2])
    predicted = stacked(features)
    for k in range(3):
        layers = oracle.mlp(5, 4)
        for i, linear in enumerate(layers[::2]):
            linear.weight.data = stacked.weights[i][k].T
            linear.bias.data = stacked.biases[i][k, 0]
        torch.testing.assert_close(predicted[k], layers(features), rtol=0, atol=1e-5)


def test_regressors_start_at_zero_with_different_hidden_layers():
    stacked = transformer.Regressors(3, 5, 4)
    assert not stacked(torch.randn(6, 5)).any()
    assert len(stacked.weights[0].flatten(1).unique(dim=0)) == 3
