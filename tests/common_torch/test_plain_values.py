"""Public functions of common/pytorch return plain Python values: json.dumps accepts them."""

import pytest
import torch

from common.pytorch import hub, probes
from common.pytorch.metrics import RunningMetrics
from tests.plain_values import assert_plain

points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
labels = torch.arange(20) % 3
probe = points, labels, points, labels
meter = RunningMetrics(["loss"], torch.device("cpu"))
meter.add({"loss": torch.tensor(0.5)}, 3)

CALLS = [
    (probes.knn_accuracy, *probe, 5),
    (probes.linear_accuracy, *probe),
    (meter.means, 1),
    (hub.is_reachable, "http://127.0.0.1:9"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_public_function_returns_plain_values(call):
    assert_plain(*call)
