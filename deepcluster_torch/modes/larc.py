"""LARC, layer-wise adaptive rate control (You et al. 2017), for large batches."""

import torch
from torch import Tensor, nn

EPSILON = 1e-8


class LARC(torch.optim.SGD):
    """SGD with momentum whose gradients are rescaled to the length of their weights.

    The gradient g of each tensor w becomes trust * |w| / (|g| + decay * |w|) * (g + decay * w),
    with Euclidean norms; it stays g if w or g is zero. As in DeepCluster-v2: trust 0.001, for all
    layers, no upper limit of the rate.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float,
        trust: float = 1e-3,
    ):
        super().__init__(parameters, lr, momentum)  # which must not decay the weights again
        self.decay, self.trust = weight_decay, trust

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    weights.grad.copy_(self._rescaled(weights, weights.grad))
        super().step(closure)

    def _rescaled(self, weights: Tensor, gradient: Tensor) -> Tensor:
        length, slope = weights.norm(), gradient.norm()
        factor = self.trust * length / (slope + self.decay * length + EPSILON)
        is_positive = (length > 0) & (slope > 0)
        return torch.where(is_positive, factor * (gradient + self.decay * weights), gradient)
