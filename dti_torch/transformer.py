"""Transformations of prototypes, and the networks that predict their parameters.

Monnier et al. 2020, section 3.2. Every transformation takes images (n, m, c, h, w) and parameters
(n, m, p); images of size 1 along m are broadcast. Parameters are offsets from the identity: zeros
change nothing. Coordinates are those of `torch.nn.functional.grid_sample`: x then y in [-1, 1], the
outer edges of the border pixels at -1 and 1 (align_corners=False).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dti_torch import config


def build(cfg: config.Model, shape: tuple[int, int, int]) -> nn.ModuleList:
    """The transformations of the config, in order, for prototypes of `shape` (c, h, w)."""
    kinds = {
        "identity": Identity,
        "color": Color,
        "affine": Affine,
        "projective": Projective,
        "tps": ThinPlateSpline,
        "morpho": Morphology,
    }
    return nn.ModuleList(kinds[name](cfg, shape) for name in cfg.transformations)


class Identity(nn.Module):
    n_parameters = 0
    spatial = False

    def __init__(self, cfg: config.Model, shape: tuple[int, int, int]):
        super().__init__()

    def forward(self, images: Tensor, parameters: Tensor) -> Tensor:
        return images

    inverse = forward


class Color(nn.Module):
    """A gain and a bias per channel."""

    spatial = False

    def __init__(self, cfg: config.Model, shape: tuple[int, int, int]):
        super().__init__()
        self.n_parameters = 2 * shape[0]

    def forward(self, images: Tensor, parameters: Tensor) -> Tensor:
        gain, bias = parameters[..., None, None].chunk(2, dim=2)  # (n, m, c, 1, 1)
        return images * (1 + gain) + bias

    def inverse(self, images: Tensor, parameters: Tensor) -> Tensor:
        gain, bias = parameters[..., None, None].chunk(2, dim=2)
        return (images - bias) / _away_from_zero(1 + gain)


class Affine(nn.Module):
    """A 2 x 3 matrix that maps every pixel to the point where the prototype is sampled."""

    n_parameters = 6
    spatial = True

    def __init__(self, cfg: config.Model, shape: tuple[int, int, int]):
        super().__init__()
        self.padding = cfg.padding
        centers = _pixel_centers(*shape[1:])
        self.register_buffer("start", centers.flatten(), persistent=False)
        self.register_buffer(
            "basis", _per_axis(_homogeneous(centers)).flatten(0, 1), persistent=False
        )

    def forward(self, images: Tensor, parameters: Tensor) -> Tensor:
        return warp(images, _linear_grid(self.start, self.basis, parameters), self.padding)

    def inverse(self, images: Tensor, parameters: Tensor) -> Tensor:
        unit = torch.eye(3, device=parameters.device)
        matrix = F.pad(parameters.unflatten(-1, (2, 3)), (0, 0, 0, 1)) + unit
        return self(images, (torch.linalg.pinv(matrix) - unit)[..., :2, :].flatten(-2))


class Projective(nn.Module):
    """A 3 x 3 homography that maps every pixel to the point where the prototype is sampled."""

    n_parameters = 9
    spatial = True

    def __init__(self, cfg: config.Model, shape: tuple[int, int, int]):
        super().__init__()
        self.padding = cfg.padding
        centers = _corner_aligned(*shape[1:]) if cfg.legacy else _pixel_centers(*shape[1:])
        self.register_buffer("points", _homogeneous(centers), persistent=False)
        self.register_buffer("unit", torch.eye(3), persistent=False)

    def matrix(self, parameters: Tensor) -> Tensor:
        return self.unit + parameters.unflatten(-1, (3, 3))

    def forward(self, images: Tensor, parameters: Tensor) -> Tensor:
        return warp(images, self._project(self.matrix(parameters)), self.padding)

    def inverse(self, images: Tensor, parameters: Tensor) -> Tensor:
        return warp(images, self._project(torch.linalg.pinv(self.matrix(parameters))), self.padding)

    def _project(self, matrix: Tensor) -> Tensor:
        mapped = self.points @ matrix.mT  # (n, m, hw, 3)
        return mapped[..., :2] / _away_from_zero(mapped[..., 2:])


class ThinPlateSpline(nn.Module):
    """The smoothest warp that moves each point of a square lattice by its offset (Bookstein 1989).

    The displacement is linear in the offsets, so the system of the spline is solved only once.
    """

    spatial = True

    def __init__(self, cfg: config.Model, shape: tuple[int, int, int]):
        super().__init__()
        self.padding = cfg.padding
        self.n_parameters = 2 * cfg.grid_size**2
        centers = _corner_aligned(*shape[1:]) if cfg.legacy else _pixel_centers(*shape[1:])
        lattice = _corner_aligned(cfg.grid_size, cfg.grid_size).double()  # (g^2, 2)
        n = len(lattice)
        system = torch.zeros(n + 3, n + 3, dtype=torch.double)
        system[:n, :n] = _radial(lattice, lattice)
        system[:n, n:] = _homogeneous(lattice)
        system[n:, :n] = _homogeneous(lattice).T
        rows = torch.cat(
            [_radial(centers.double(), lattice), _homogeneous(centers.double())], dim=1
        )
        spline = (rows @ torch.linalg.inv(system)[:, :n]).to(centers.dtype)  # (hw, g^2)
        basis = _per_axis(spline).transpose(0, 1).flatten(0, 1)  # rows: x, y of each point
        self.register_buffer("start", centers.flatten(), persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, images: Tensor, parameters: Tensor) -> Tensor:
        return warp(images, _linear_grid(self.start, self.basis, parameters), self.padding)

    def inverse(self, images: Tensor, parameters: Tensor) -> Tensor:
        """The spline of the negative offsets, the inverse to first order."""
        return self(images, -parameters)


class Morphology(nn.Module):
    """Soft dilation (positive slope) or erosion (negative) in a learned window.

    out_i = sum_j w_j e^(s x_j) x_j / sum_j w_j e^(s x_j), over a kernel around i, zeros outside.
    Parameters: s, then a window logit for each pixel of the kernel.
    """

    spatial = False
    OPEN, CLOSED = 5.0, -5.0  # initial window logits of the center and of the other pixels
    FLOOR = 1 / (1 + math.exp(5.0))  # sigmoid(CLOSED)
    MIN_WEIGHT = 1e-8  # a window that is closed everywhere averages its pixels
    MAX_EXPONENT = 80.0  # e^80 and its inverse are still normal float32 numbers

    def __init__(self, cfg: config.Model, shape: tuple[int, int, int]):
        super().__init__()
        self.legacy = cfg.legacy
        self.kernel_size = cfg.kernel_size
        self.n_parameters = 1 + cfg.kernel_size**2
        logits = torch.full((cfg.kernel_size**2,), self.CLOSED)
        logits[cfg.kernel_size**2 // 2] = self.OPEN
        self.register_buffer("logits", logits, persistent=False)

    def window(self, parameters: Tensor) -> Tensor:
        """parameters (n, m, 1 + s^2) -> weights (n, m, s^2); the identity has one at the center.

        The authors' sigmoid(-5) leaves a quarter of the weight of a 7 x 7 kernel off the center: a
        blur. We subtract that floor; the slope of the sigmoid, and so the gradient, is unchanged.
        """
        weights = torch.sigmoid(self.logits + parameters[..., 1:])
        if self.legacy:
            return weights
        weights = weights - self.FLOOR
        # straight-through: the gradient of clamp is 0 at the identity, closed pixels could not open
        return weights + (weights.clamp(min=self.MIN_WEIGHT) - weights).detach()

    def forward(self, images: Tensor, parameters: Tensor) -> Tensor:
        k = self.kernel_size
        n, m = parameters.shape[:2]
        images = images.expand(n, m, *images.shape[2:])
        c, h, w = images.shape[2:]
        padded = F.pad(images, (k // 2,) * 4)
        exponents = padded * parameters[..., :1, None, None]
        weights = exponents.clamp(-self.MAX_EXPONENT, self.MAX_EXPONENT).exp()
        window = self.window(parameters).reshape(-1, 1, k, k).repeat_interleave(c, 0)

        def windowed_sum(values: Tensor) -> Tensor:
            rows = values.reshape(1, -1, h + k - 1, w + k - 1)
            return WindowedSum.apply(rows, window).view(n, m, c, h, w)

        return windowed_sum(weights * padded) / windowed_sum(weights)

    def inverse(self, images: Tensor, parameters: Tensor) -> Tensor:
        """The images, unchanged: morphology loses detail and has no inverse."""
        return images


class WindowedSum(torch.autograd.Function):
    """Depthwise convolution: (1, n, h, w), (n, 1, k, k) -> (1, n, h - k + 1, w - k + 1).

    The gradient of the windows is a convolution with the incoming gradient as the kernel: 16 times
    as fast as PyTorch's own on the CPU, which took half of a training step.
    """

    @staticmethod
    def forward(ctx, values: Tensor, window: Tensor) -> Tensor:
        ctx.save_for_backward(values, window)
        return F.conv2d(values, window, groups=len(window))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        values, window = ctx.saved_tensors
        n = len(window)
        values_gradient = F.conv_transpose2d(gradient, window, groups=n)
        window_gradient = F.conv2d(values, gradient.transpose(0, 1), groups=n).transpose(0, 1)
        return values_gradient, window_gradient


class Regressors(nn.Module):
    """An MLP per prototype, stacked: features, two hidden layers of 128 units, parameters.

    The last layer starts at zero, so that every transformation starts as the identity. Sharing them
    between prototypes costs 4 points of accuracy (arXiv 2604.19480).
    """

    def __init__(self, n_prototypes: int, n_features: int, n_parameters: int, n_hidden: int = 128):
        super().__init__()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for n_in, n_out, start in (
            (n_features, n_hidden, n_features**-0.5),
            (n_hidden, n_hidden, n_hidden**-0.5),
            (n_hidden, n_parameters, 0.0),
        ):
            self.weights.append(
                nn.init.uniform_(torch.empty(n_prototypes, n_in, n_out), -start, start)
            )
            self.biases.append(nn.init.uniform_(torch.empty(n_prototypes, 1, n_out), -start, start))

    def forward(self, features: Tensor) -> Tensor:
        """features (b, f) -> parameters (k, b, p)"""
        x = features.expand(len(self.weights[0]), -1, -1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x.relu() if i else x, weight)
        return x


def warp(images: Tensor, grid: Tensor, padding: str) -> Tensor:
    """Samples images (n, m or 1, c, h, w) bilinearly at grid (n, m, hw, 2) -> (n, m, c, h, w)."""
    n, m = grid.shape[:2]
    c, h, w = images.shape[2:]
    if images.shape[1] == 1:  # one tall grid per image: the image is not copied m times
        out = F.grid_sample(images[:, 0], grid.reshape(n, m * h, w, 2), "bilinear", padding, False)
        return out.view(n, c, m, h, w).transpose(1, 2)
    out = F.grid_sample(images.flatten(0, 1), grid.view(n * m, h, w, 2), "bilinear", padding, False)
    return out.view(n, m, c, h, w)


def _linear_grid(start: Tensor, basis: Tensor, parameters: Tensor) -> Tensor:
    """start (2 hw) + parameters (n, m, p) @ basis (p, 2 hw) -> (n, m, hw, 2)"""
    grid = torch.addmm(start, parameters.flatten(0, 1), basis)
    return grid.view(*parameters.shape[:2], -1, 2)


def _per_axis(values: Tensor) -> Tensor:
    """values (hw, p) -> basis (2, p, 2 hw): the first half affects x only, the second y only."""
    basis = values.new_zeros(2, values.shape[1], len(values), 2)
    basis[0, :, :, 0] = basis[1, :, :, 1] = values.T
    return basis.flatten(2)


def _homogeneous(points: Tensor) -> Tensor:
    """(n, 2) -> (n, 3) with ones"""
    return F.pad(points, (0, 1), value=1.0)


def _pixel_centers(h: int, w: int) -> Tensor:
    return _lattice((torch.arange(h) * 2 + 1) / h - 1, (torch.arange(w) * 2 + 1) / w - 1)


def _corner_aligned(h: int, w: int) -> Tensor:
    return _lattice(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w))


def _lattice(ys: Tensor, xs: Tensor) -> Tensor:
    """(hw, 2) points, x first, row by row"""
    return torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1).reshape(-1, 2)


def _radial(points: Tensor, centers: Tensor) -> Tensor:
    """The TPS kernel r^2 log(r^2) / 2 between points (p, 2) and centers (q, 2) -> (p, q)."""
    squared = (points[:, None] - centers).square().sum(-1)
    return 0.5 * torch.xlogy(squared, squared)


def _away_from_zero(x: Tensor, smallest: float = 1e-3) -> Tensor:
    return torch.where(x.abs() < smallest, torch.where(x < 0, -smallest, smallest), x)
