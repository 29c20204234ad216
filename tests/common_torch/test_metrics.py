import pytest
import torch

from common.pytorch.metrics import RunningMetrics

CPU = torch.device("cpu")


def test_means_over_steps_and_reset():
    metrics = RunningMetrics(["loss", "norm"], CPU)
    for loss in (1.0, 2.0):
        metrics.add({"loss": torch.tensor(loss), "norm": torch.tensor(5.0)}, n_images=10)
    means = metrics.means(2)
    assert means.pop("images_per_second") > 0
    assert means == {"loss": 1.5, "norm": 5.0}
    metrics.add({"loss": torch.tensor(4.0)}, n_images=10)
    means = metrics.means(1)
    assert (means["loss"], means["norm"]) == (4.0, 0.0)


def test_sums_are_tensors_to_be_filled_in_place():
    metrics = RunningMetrics(["loss"], CPU)
    metrics.tensors["sum.loss"].copy_(torch.tensor(6.0))
    metrics.add({"loss": torch.tensor(3.0)}, n_images=1)
    assert metrics.means(2)["loss"] == 4.5


def test_unknown_names_are_refused():
    with pytest.raises(KeyError):
        RunningMetrics(["loss"], CPU).add({"lss": torch.tensor(1.0)}, n_images=1)
