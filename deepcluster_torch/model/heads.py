"""Heads on top of the trunk: a classifier in v1; projection and prototypes in v2."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F


class Head(nn.Linear):
    """Features (b, f) -> logits (b, k): ReLU, then a linear layer (the paper's top layer)."""

    def __init__(self, n_features: int, n_clusters: int):
        super().__init__(n_features, n_clusters)
        self.n_clusters = n_clusters
        self.reset()

    @torch.no_grad()
    def reset(self, generator: Generator | None = None) -> None:
        """Draws weights N(0, 0.01^2) with a generator on the CPU; biases 0."""
        self.weight.copy_(0.01 * torch.randn(self.weight.shape, generator=generator))
        self.bias.zero_()

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.relu())


class Projection(nn.Module):
    """Features (b, f) -> embeddings (b, d) of length 1: ReLU, linear, batch norm, ReLU, linear."""

    def __init__(self, n_features: int, n_hidden: int = 2048, n_out: int = 128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),  # alexnet and vgg end before their last one
            nn.Linear(n_features, n_hidden),
            nn.BatchNorm1d(n_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(n_hidden, n_out),
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.layers(features).float())  # in bfloat16, lengths are off by 0.4 %


class Prototypes(nn.Module):
    """Classification heads whose weights are centroids of length 1, not trained."""

    def __init__(self, n_dims: int, n_clusters: tuple[int, ...]):
        super().__init__()
        for head, k in enumerate(n_clusters):
            self.register_buffer(f"head{head}", F.normalize(torch.randn(k, n_dims)))

    def set(self, head: int, centroids: Tensor) -> None:
        """Replaces the weights of a head by normalized centroids (k, d)."""
        self.get_buffer(f"head{head}").copy_(F.normalize(centroids))

    def forward(self, embeddings: Tensor) -> list[Tensor]:
        """Embeddings (b, d) -> cosine similarities (b, k) per head."""
        return [embeddings @ centroids.T.to(embeddings) for centroids in self.buffers()]
