"""Public functions of dfc_tf return plain Python values: json.dumps accepts them."""

import pytest

from dfc_tf import config, data, train
from tests.plain_values import assert_plain

CALLS = [
    (data.batches, config.Config(), 5),
    (train.n_steps, config.Config(), 1),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)
