"""Deep metric learning via facility location (Song, Jegelka, Rathod, Murphy, CVPR 2017)."""

import os
from typing import TYPE_CHECKING

# Read when TensorFlow is imported: halves a training step on CPUs where it is off by default.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if TYPE_CHECKING:
    from clusterloss_tf.callback import RetrievalCallback
    from clusterloss_tf.estimator import MetricLearner
    from clusterloss_tf.loss import BaselineLoss, FacilityLocationLoss

_MODULES = {
    "BaselineLoss": "loss",
    "FacilityLocationLoss": "loss",
    "MetricLearner": "estimator",
    "RetrievalCallback": "callback",
}
__all__ = ["BaselineLoss", "FacilityLocationLoss", "MetricLearner", "RetrievalCallback"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # on first use: these modules load TensorFlow, evaluate.py does without it

    return getattr(importlib.import_module(f"clusterloss_tf.{_MODULES[name]}"), name)
