"""Public functions of unsup_seg_torch return plain Python values: json.dumps accepts them."""

import numpy as np
import pytest
import torch

from tests.plain_values import assert_plain
from unsup_seg_torch.dino import config as dino_config
from unsup_seg_torch.dino import probes
from unsup_seg_torch.dino import train as dino_train
from unsup_seg_torch.postprocess import spectral
from unsup_seg_torch.segmenter import sliding_window
from unsup_seg_torch.wnet import config, data, train

points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
labels = torch.arange(20) % 3
probe = points, labels, points, labels
affinities = np.exp(points.numpy() @ points.numpy().T)

CALLS = [
    (probes.scores, *probe),
    (dino_train.schedules, dino_config.Training(), 3, 10),
    (spectral.two_way, affinities),
    (spectral.normalized_cut, affinities, labels.numpy()),
    (sliding_window.anchors, 100, 32, 20),
    (data.crops_per_image, config.Config(), 6),
    (train.learning_rate, config.Training(), 3, 10),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)
