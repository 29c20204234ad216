"""The losses: cross-entropy against the clusters of the last assignment."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def pseudo_label_loss(logits: Tensor, assignments: Tensor) -> Tensor:
    """Mean of -log softmax(logits) at the cluster of each image (paper, equation 2).

    logits (b, k); assignments (b,)
    """
    return F.cross_entropy(logits, assignments)


def prototype_loss(cosines: Sequence[Tensor], assignments: Tensor, temperature: float) -> Tensor:
    """Mean over heads, crops and images of -log softmax(cosine / temperature) at the cluster.

    cosines: (v b, k) per head, crop by crop; assignments (h, b), shared by all v crops of an image.
    DeepCluster-v2 (Caron et al. 2020, appendix D).
    """
    losses = [
        F.cross_entropy(per_head / temperature, labels.repeat(len(per_head) // len(labels)))
        for per_head, labels in zip(cosines, assignments, strict=True)
    ]
    return sum(losses) / len(losses)
