"""Public functions of clusterloss_tf return plain Python values: json.dumps accepts them."""

import numpy as np
import pytest

from clusterloss_tf import FacilityLocationLoss, config, data, train
from tests.plain_values import assert_plain

CALLS = [
    (data.batch_shape, 10, 64, 4),
    (train.learning_rate, config.Training(), np.float64(0.5)),
    (FacilityLocationLoss(np.float32(8)).get_config,),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)
