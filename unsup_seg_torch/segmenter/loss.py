"""Loss and accuracy of pixel classes; pixels labeled IGNORE do not count."""

import torch
from torch import Tensor
from torch.nn import functional as F

from unsup_seg_torch.segmenter.data import IGNORE


def pixel_cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over the labeled pixels: (b, k, h, w), (b, h, w) -> scalar.

    0 if no pixel is labeled. class_weights (k,): weight of the pixels of each class in the mean.
    """
    is_labeled = labels != IGNORE
    total = F.cross_entropy(
        logits.float(), labels, class_weights, ignore_index=IGNORE, reduction="sum"
    )
    if class_weights is None:
        return total / is_labeled.sum().clamp(min=1)
    return total / class_weights[labels[is_labeled]].sum().clamp(min=1e-6)


def pixel_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Fraction of labeled pixels whose class has the highest of logits (b, k, h, w)."""
    is_labeled = labels != IGNORE
    # on the CPU an argmax over a strided dimension takes ten times as long as the maximum
    own = logits.gather(1, torch.where(is_labeled, labels, 0)[:, None])[:, 0]
    return ((own >= logits.amax(1)) & is_labeled).sum() / is_labeled.sum().clamp(min=1)
