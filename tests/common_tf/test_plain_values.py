"""Public functions of the TensorFlow papers return plain Python values."""

import numpy as np
import pytest

from clusterloss_tf import FacilityLocationLoss, data, train
from clusterloss_tf import config as clusterloss_config
from common.tf.device import device_name
from dfc_tf import config
from dfc_tf import data as dfc_data
from dfc_tf import train as dfc_train
from tests.plain_values import assert_plain

cfg = config.Config()
CALLS = [
    (device_name,),
    (data.batch_shape, 10, 64, 4),
    (train.learning_rate, clusterloss_config.Training(), np.float64(0.5)),
    (FacilityLocationLoss(np.float32(8)).get_config,),
    (dfc_data.batches, cfg, 5),
    (dfc_train.n_steps, cfg, 1),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)
