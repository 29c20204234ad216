"""Losses of W-Net: the soft normalized cut, exact and matrix-free, and the reconstruction error."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK = 8192  # pixels: twenty maps of them fit into the cache of a core
OUTSIDE = 1e9  # color beyond the border, in standard deviations: the weight becomes exp(-inf) = 0


def soft_ncut(
    probabilities: Tensor,
    images: Tensor,
    radius: float = 5,
    sigma_intensity: float = 10 / 255,
    sigma_position: float = 4,
) -> Tensor:
    """J = K - sum_k (p_k' W p_k) / (p_k' W 1) of every image (Xia and Kulis 2017, section 3.1).

    probabilities (b, k, h, w), summing to 1 over k; images (b, c, h, w) in [0, 1] -> (b,), from 0
    to K. Uniform probabilities have K - 1, and so has a single label: an empty label counts 1.
    w_ij = exp(-|f_i - f_j|^2 / sigma_intensity^2 - |x_i - x_j|^2 / sigma_position^2) for pixels
    closer than radius, including i = j, else 0. Squares are summed over channels, not averaged.
    Differentiable in the probabilities only. Raises ValueError for arguments that do not fit.
    """
    _check(probabilities, images)
    if probabilities.dtype in (torch.float16, torch.bfloat16):
        probabilities = probabilities.float()
    images = images.detach().to(probabilities.dtype)
    return _SoftNCut.apply(probabilities, images, radius, sigma_intensity, sigma_position)


def reconstruction(decoded: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of pixels in [0, 1]: both (b, c, h, w) -> scalar."""
    # paper: the sum over pixels and channels, whose weight grows with the image. Ours is the mean
    return F.mse_loss(decoded, images)


class SoftNCutLoss(nn.Module):
    """Mean of `soft_ncut` over the images: forward(probabilities, images) -> scalar."""

    def __init__(
        self, radius: float = 5, sigma_intensity: float = 10 / 255, sigma_position: float = 4
    ):
        super().__init__()
        self.radius = radius
        self.sigma_intensity = sigma_intensity
        self.sigma_position = sigma_position

    def forward(self, probabilities: Tensor, images: Tensor) -> Tensor:
        sigmas = self.sigma_intensity, self.sigma_position
        return soft_ncut(probabilities, images, self.radius, *sigmas).mean()

    def extra_repr(self) -> str:
        return f"{self.radius}, {self.sigma_intensity:.4g}, {self.sigma_position}"


class _SoftNCut(torch.autograd.Function):
    """With A = W p and d = W 1, dJ / dp_k = (p_k'A_k / p_k'd) d / p_k'd - 2 A_k / p_k'd."""

    @staticmethod
    def forward(
        ctx: Any,
        probabilities: Tensor,
        images: Tensor,
        radius: float,
        sigma_intensity: float,
        sigma_position: float,
    ) -> Tensor:
        b, k, h, w = probabilities.shape
        grid = _Grid(h, w, radius, sigma_position)
        sums = []
        products = probabilities.new_empty(b, k + 1, grid.length)
        for image, maps, product in zip(images, probabilities, products, strict=True):
            # The last map is one everywhere: its product is the degrees.
            maps = grid.flat(torch.cat([maps, torch.ones_like(maps[:1])]), outside=0)
            multiply(grid.weights(image / sigma_intensity), grid.shifts, maps, product)
            degrees = product[k]
            sums.append([(maps[:k] * product[:k]).sum(1), (maps[:k] * degrees).sum(1)])
        inside, total = (torch.stack(each) for each in zip(*sums, strict=True))  # (b, k)
        # Without any pixel of the label both are 0, and so is their ratio.
        total = total.clamp(min=torch.finfo(total.dtype).tiny ** 0.5)
        share = inside / total
        ctx.save_for_backward(grid.cut(products), share, total)
        return k - share.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        products, share, total = ctx.saved_tensors
        of_product, of_degree = -2 * gradient[:, None] / total, gradient[:, None] * share / total
        first = products[:, :-1] * of_product[:, :, None, None]
        return first.addcmul_(products[:, -1:], of_degree[:, :, None, None]), *[None] * 4


def multiply(weights: Tensor, shifts: list[int], maps: Tensor, out: Tensor) -> None:
    """out = (1 + W) maps, for W symmetric by its upper diagonals: weights[i] at shifts[i].

    weights (s, n); maps, out (k, n). maps and weights are 0 wherever a shift would leave the grid.
    """
    n = maps.shape[1]
    out.copy_(maps)
    step = CHUNK if maps.device.type == "cpu" else n
    for start in range(0, n, step):
        for weight, shift in zip(weights, shifts, strict=True):
            end = min(start + step, n - shift)
            if end > start:
                here, there = slice(start, end), slice(start + shift, end + shift)
                out[:, here].addcmul_(weight[here], maps[:, there])
                out[:, there].addcmul_(weight[here], maps[:, here])


class _Grid:
    """Pixels in row order with a margin after each row, so that a neighbor is a shift in memory.

    A shift across the border ends in a margin, whose weights are 0.
    """

    def __init__(self, h: int, w: int, radius: float, sigma_position: float):
        self.h, self.w = h, w
        reach = max(math.ceil(radius) - 1, 0)
        self.stride = w + reach
        self.length = self.stride * h
        steps = range(-reach, reach + 1)
        offsets = [  # of each pair of neighbors the one below, or to the right
            (dy, dx)
            for dy in range(reach + 1)
            for dx in steps
            if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius * radius
        ]
        self.shifts = [dy * self.stride + dx for dy, dx in offsets]
        self.distances = [(dy * dy + dx * dx) / sigma_position**2 for dy, dx in offsets]

    def flat(self, maps: Tensor, outside: float) -> Tensor:
        """(c, h, w) -> (c, length)"""
        return F.pad(maps, (0, self.stride - self.w), value=outside).flatten(1)

    def cut(self, flat: Tensor) -> Tensor:
        """(b, c, length) -> (b, c, h, w), a view"""
        return flat.unflatten(2, (self.h, self.stride))[..., : self.w]

    def weights(self, features: Tensor) -> Tensor:
        """Weights between each pixel and its neighbors: features (c, h, w) -> (shifts, length)."""
        features = self.flat(features, outside=OUTSIDE)
        weights = features.new_zeros(len(self.shifts), self.length)
        for weight, shift, distance in zip(weights, self.shifts, self.distances, strict=True):
            if shift < self.length:
                gaps = features[:, : self.length - shift] - features[:, shift:]
                part = weight[: self.length - shift]
                torch.sum(gaps.square_(), 0, out=part)
                part.add_(distance).neg_().exp_()
        return weights


def _check(probabilities: Tensor, images: Tensor) -> None:
    shapes = f"probabilities {tuple(probabilities.shape)}, images {tuple(images.shape)}"
    if probabilities.ndim != 4 or images.ndim != 4:
        raise ValueError(f"{shapes}: expected (b, k, h, w) and (b, c, h, w)")
    if (len(probabilities), *probabilities.shape[2:]) != (len(images), *images.shape[2:]):
        raise ValueError(f"{shapes}: expected the same number of images of the same size")
    if probabilities.device.type == "cpu" and probabilities.numel():  # a GPU would have to wait
        total = float(probabilities[0, :, 0, 0].detach().sum())
        if abs(total - 1) > 0.02:  # NaN passes: it shows in the loss
            raise ValueError(
                f"the first pixel's probabilities sum to {total:.3g}, not 1: "
                "the order is probabilities, images"
            )
