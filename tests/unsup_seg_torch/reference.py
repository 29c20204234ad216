"""Slow reference implementations: the formulas written out."""

import math

import numpy as np


def weight_matrix(image, radius=5, sigma_intensity=10 / 255, sigma_position=4):
    """W of the soft normalized cut, pair by pair: image (c, h, w) -> (n, n)"""
    _, h, w = image.shape
    pixels = [(y, x) for y in range(h) for x in range(w)]
    weights = np.zeros((h * w, h * w))
    for i, (y, x) in enumerate(pixels):
        for j, (v, u) in enumerate(pixels):
            distance = (y - v) ** 2 + (x - u) ** 2
            if distance < radius**2:
                difference = ((image[:, y, x] - image[:, v, u]) ** 2).sum()
                weights[i, j] = math.exp(-difference / sigma_intensity**2) * math.exp(
                    -distance / sigma_position**2
                )
    return weights


def soft_ncut(probabilities, image, **options):
    """probabilities (k, h, w), image (c, h, w) -> K - the sum over labels of their associations."""
    weights = weight_matrix(image, **options)
    loss = float(len(probabilities))
    for label in probabilities.reshape(len(probabilities), -1):
        inside, total = label @ weights @ label, label @ weights.sum(1)
        loss -= inside / total if total else 0
    return loss


def plain_soft_ncut(probabilities, images, radius=5, sigma_intensity=10 / 255, sigma_position=4):
    """The sum over all offsets in PyTorch, differentiated by autograd -> (b,)"""
    k, h, w = probabilities.shape[1:]
    reach = radius - 1
    inside = probabilities.new_zeros(len(probabilities), k)
    total = probabilities.new_zeros(len(probabilities), k)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx >= radius * radius:
                continue
            ys, xs = slice(max(-dy, 0), h - max(dy, 0)), slice(max(-dx, 0), w - max(dx, 0))
            yt, xt = slice(max(dy, 0), h + min(dy, 0)), slice(max(dx, 0), w + min(dx, 0))
            differences = ((images[..., ys, xs] - images[..., yt, xt]) ** 2).sum(1, keepdim=True)
            distance = (dy * dy + dx * dx) / sigma_position**2
            weights = (-differences / sigma_intensity**2 - distance).exp()
            here, there = probabilities[..., ys, xs], probabilities[..., yt, xt]
            inside = inside + (here * weights * there).sum((2, 3))
            total = total + (here * weights).sum((2, 3))
    return k - (inside / total).sum(1)


def gaussian_filter(features, values):
    """D^-1/2 K D^-1/2 values over all pairs: features (n, d), values (n, c)."""
    kernel = np.exp(-((features[:, None] - features[None]) ** 2).sum(-1) / 2)
    scale = kernel.sum(1) ** -0.5
    return (scale[:, None] * kernel * scale) @ values


def mean_field(
    probabilities,
    image,
    n_iterations,
    position,
    color,
    appearance_weight,
    smoothness_position,
    smoothness_weight,
):
    """Mean field of the CRF over all pairs of pixels: (k, h, w) -> (k, h, w)"""
    k, h, w = probabilities.shape
    positions = np.array([(x, y) for y in range(h) for x in range(w)], float)
    both = np.concatenate([positions / position, image.reshape(-1, 3) / color], 1)
    unary = np.log(np.maximum(probabilities.reshape(k, -1).T, 1e-6))
    current = softmax(unary)
    for _ in range(n_iterations):
        appearance = appearance_weight * gaussian_filter(both, current)
        smoothness = gaussian_filter(positions / smoothness_position, current)
        current = softmax(unary + appearance + smoothness_weight * smoothness)
    return current.T.reshape(k, h, w)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)
