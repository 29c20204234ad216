"""Public functions of common/tf return plain Python values: json.dumps accepts them."""

import pytest

from common.tf.device import device_name
from tests.plain_values import assert_plain

CALLS = [
    (device_name,),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)
