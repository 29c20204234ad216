"""Public functions of deepcluster_torch return plain Python values: json.dumps accepts them."""

import pytest
import torch

from deepcluster_torch import config, train
from deepcluster_torch.cluster import kmeans
from deepcluster_torch.data import augment
from deepcluster_torch.evaluation import probes
from deepcluster_torch.model import features
from deepcluster_torch.modes import state
from tests.plain_values import assert_plain

points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
labels = torch.arange(20) % 3
probe = points, labels, points, labels
model, training = config.Model(), config.Training()

CALLS = [
    (probes.mean_average_precision, *probe),
    (features.spread, points),
    (augment.input_side, model, 20, 30),
    (state.choose_mode, model, 100),
    (state.head_sizes, model, 100),
    (train.lr_factor, training, 3.5),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)


def test_objective_of_kmeans_is_a_float():
    assert type(kmeans.kmeans(points, 3).objective) is float
