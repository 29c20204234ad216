"""Public functions of common/pytorch and of the PyTorch papers return plain Python values."""

import numpy as np
import pytest
import torch

from common.pytorch import hub, probes
from common.pytorch.metrics import RunningMetrics
from deepcluster_torch import config as deepcluster_config
from deepcluster_torch import train as deepcluster_train
from deepcluster_torch.cluster import kmeans
from deepcluster_torch.data import augment
from deepcluster_torch.evaluation import probes as deepcluster_probes
from deepcluster_torch.model import features
from deepcluster_torch.modes import state
from dti_torch import cluster, config, train
from tests.plain_values import assert_plain
from unsup_seg_torch.dino import config as dino_config
from unsup_seg_torch.dino import probes as dino_probes
from unsup_seg_torch.dino import train as dino_train
from unsup_seg_torch.postprocess import spectral
from unsup_seg_torch.segmenter import sliding_window
from unsup_seg_torch.wnet import config as wnet_config
from unsup_seg_torch.wnet import data as wnet_data
from unsup_seg_torch.wnet import train as wnet_train

points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
labels = torch.arange(20) % 3
probe = points, labels, points, labels
affinities = np.exp(points.numpy() @ points.numpy().T)
model, training = deepcluster_config.Model(), deepcluster_config.Training()
meter = RunningMetrics(["loss"], torch.device("cpu"))
meter.add({"loss": torch.tensor(0.5)}, 3)

CALLS = [
    (probes.knn_accuracy, *probe, 5),
    (probes.linear_accuracy, *probe),
    (dino_probes.scores, *probe),
    (deepcluster_probes.mean_average_precision, *probe),
    (meter.means, 1),
    (hub.is_reachable, "http://127.0.0.1:9"),
    (features.spread, points),
    (augment.input_side, model, 20, 30),
    (state.choose_mode, model, 100),
    (state.head_sizes, model, 100),
    (deepcluster_train.lr_factor, training, 3.5),
    (cluster.find_redundant, torch.tensor([[5.0, 5], [1, 9], [0.1, 4]]), torch.zeros(2), 0.5),
    (train.learning_rate, config.Training(cosine_from=0.5), 30.5),
    (dino_train.schedules, dino_config.Training(), 3, 10),
    (spectral.two_way, affinities),
    (spectral.normalized_cut, affinities, labels.numpy()),
    (sliding_window.anchors, 100, 32, 20),
    (wnet_data.crops_per_image, wnet_config.Config(), 6),
    (wnet_train.learning_rate, wnet_config.Training(), 3, 10),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)


def test_objective_of_kmeans_is_a_float():
    assert type(kmeans.kmeans(points, 3).objective) is float
