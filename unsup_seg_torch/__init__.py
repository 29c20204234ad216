"""Segmentation: W-Net, without labels; Segmenter and DINO, with vision transformers."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unsup_seg_torch.dino.estimator import DINOFeatures
    from unsup_seg_torch.dino.model import DINO
    from unsup_seg_torch.segmenter.estimator import PixelClassifier
    from unsup_seg_torch.segmenter.model import Segmenter
    from unsup_seg_torch.wnet.estimator import WNetSegmenter
    from unsup_seg_torch.wnet.loss import SoftNCutLoss
    from unsup_seg_torch.wnet.model import WNet

__all__ = [
    "DINO",
    "DINOFeatures",
    "PixelClassifier",
    "Segmenter",
    "SoftNCutLoss",
    "WNet",
    "WNetSegmenter",
]

_MODULES = {
    "DINO": "dino.model",
    "DINOFeatures": "dino.estimator",
    "PixelClassifier": "segmenter.estimator",
    "Segmenter": "segmenter.model",
    "SoftNCutLoss": "wnet.loss",
    "WNet": "wnet.model",
    "WNetSegmenter": "wnet.estimator",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # loads PyTorch, which evaluate.py does not need
    return getattr(importlib.import_module(f"unsup_seg_torch.{_MODULES[name]}"), name)
