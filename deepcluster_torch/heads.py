"""What stands on a trunk: a classifier in v1; projection and prototypes in v2."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F


class Head(nn.Linear):
    """Features (b, f) -> scores (b, k): ReLU, then a linear layer (the paper's top layer)."""

    def __init__(self, n_features: int, n_clusters: int):
        super().__init__(n_features, n_clusters)
        self.n_clusters = n_clusters
        self.reset()

    @torch.no_grad()
    def reset(self, generator: Generator | None = None) -> None:
        """New weights N(0, 0.01^2), biases 0. The generator is on the CPU."""
        self.weight.copy_(0.01 * torch.randn(self.weight.shape, generator=generator))
        self.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.relu())


class Projection(nn.Module):
    """Features (b, f) -> embeddings (b, d) of length 1: ReLU, linear, batch norm, ReLU, linear."""

    def __init__(self, n_features: int, n_hidden: int = 2048, n_out: int = 128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),  # alexnet and vgg end before theirs
            nn.Linear(n_features, n_hidden),
            nn.BatchNorm1d(n_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(n_hidden, n_out),
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.layers(features).float())  # bfloat16 has lengths off by 0.4 %


class Prototypes(nn.Module):
    """Several heads whose weights are centroids of length 1, and are not learned."""

    def __init__(self, n_dims: int, n_clusters: tuple[int, ...]):
        super().__init__()
        for head, k in enumerate(n_clusters):
            self.register_buffer(f"head{head}", F.normalize(torch.randn(k, n_dims)))

    def set(self, head: int, centroids: Tensor) -> None:
        """Puts centroids (k, d) into a head, normalised."""
        self.get_buffer(f"head{head}").copy_(F.normalize(centroids))

    def forward(self, embeddings: Tensor) -> list[Tensor]:
        """embeddings (b, d) -> cosines (b, k) of each head"""
        return [embeddings @ centroids.T.to(embeddings) for centroids in self.buffers()]
