import pytest

from common import UserError
from deepcluster_torch import config
from deepcluster_torch.modes.state import choose_mode, head_sizes


@pytest.mark.parametrize(
    ("options", "n", "expected"),
    [
        ({}, 99_999, "v2"),
        ({}, 100_000, "v1"),
        ({"weights": "w.pth"}, 9_999, "frozen"),
        ({"pretrained": True}, 10_000, "v2"),
        ({"mode": "v1"}, 10, "v1"),
    ],
)
def test_mode_depends_on_weights_and_the_number_of_images(options, n, expected):
    mode, reason = choose_mode(config.Model(**options), n)
    assert mode == expected and reason


def test_frozen_without_weights_is_refused():
    with pytest.raises(UserError, match="set model.weights to a file, or model.pretrained true"):
        choose_mode(config.Model(mode="frozen"), 10)


def test_heads_have_ten_times_n_clusters_with_enough_images():
    assert head_sizes(config.Model(n_clusters=10), 5000) == (100, 100, 100)
    assert head_sizes(config.Model(n_clusters=10), 500) == (50, 50, 50)
    assert head_sizes(config.Model(n_clusters=10), 20) == (10, 10, 10)
    assert head_sizes(config.Model(heads=(7, 9)), 5000) == (7, 9)
