"""Networks: the trunk that computes features, the heads on top of it, and pretrained weights."""

from deepcluster_torch.model.trunk import Trunk, build

__all__ = ["Trunk", "build"]
