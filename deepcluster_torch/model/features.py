"""Features of all images by a network in evaluation mode."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import UserError
from common.pytorch.precision import autocast
from deepcluster_torch import config
from deepcluster_torch.data.augment import center_crops


@torch.no_grad()
def extract(net: nn.ModuleDict, images: np.ndarray, cfg: config.Config) -> Tensor:
    """Features (n, f) float32 of images uint8 (n, h, w, c), on the device of the network.

    In v2 with model.cluster_on embedding: embeddings. Raises UserError for NaN.
    """
    device = next(net.parameters()).device
    was_training, parts = net.training, []
    net.eval()
    for batch in center_crops(images, cfg, device):
        with autocast(cfg.training.precision, device):
            features = net["trunk"](batch)
            if cfg.model.cluster_on == "embedding" and "projection" in net:
                features = net["projection"](features)
        parts.append(features.float())
    net.train(was_training)
    features = torch.cat(parts)
    if not features.isfinite().all():
        raise UserError("the features became NaN or infinite: lower training.lr")
    return features


def spread(features: Tensor) -> float:
    """How much the directions of features (n, f) differ: 0 if they are all equal, at most 1."""
    mean = F.normalize(features).mean(0)
    return float((1 - mean.square().sum()).clamp(min=0).sqrt())
