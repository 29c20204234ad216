"""Public functions of dti_torch return plain Python values: json.dumps accepts them."""

import pytest
import torch

from dti_torch import cluster, config, train
from tests.plain_values import assert_plain

model = config.Model(curriculum=(0.5, 1), transformations=("identity", "affine", "tps"))

CALLS = [
    (model.start_epochs, 10),
    (model.n_initial, 100),
    (model.n_left, 12, 0.5, 40),
    (cluster.superfluous, torch.rand(10, 4), 2),
    (train.learning_rate, config.Training(cosine_from=0.5), 30.5),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)
