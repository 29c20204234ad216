import pickle

import pytest
import torch
from torch import nn

from common import UserError
from common.pytorch import checkpoint
from common.run import Run
from tests.entry_scripts import PickleBomb


def build_net(width=8):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 8, 3))
    return net.to(memory_format=torch.channels_last)


def build_optimizer(name, net):
    if name == "sgd":
        return torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    return torch.optim.AdamW(net.parameters(), 0.1, fused=name == "fused")


def train(net, optimizer, n_steps, seed):
    images = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    for _ in range(n_steps):
        optimizer.zero_grad()
        net(images.to(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["adam", "fused", "sgd"])
def test_resumed_training_equals_an_uninterrupted_one(tmp_path, name):
    net = build_net()
    optimizer = build_optimizer(name, net)
    train(net, optimizer, 3, seed=1)
    checkpoint.write(tmp_path / "net", net.state_dict(), {"epoch": "3"})
    checkpoint.write(tmp_path / "state", checkpoint.optimizer_tensors(optimizer))
    train(net, optimizer, 2, seed=2)

    resumed = build_net()
    other = build_optimizer(name, resumed)
    checkpoint.load_module(resumed, tmp_path / "net")
    saved = checkpoint.read(tmp_path / "state")
    checkpoint.load_optimizer(other, saved, tmp_path / "state")
    train(resumed, other, 2, seed=2)
    for a, b in zip(net.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_moments_get_the_memory_layout_of_their_parameter(tmp_path):
    net = build_net()
    optimizer = build_optimizer("adam", net)
    train(net, optimizer, 1, seed=1)
    checkpoint.write(tmp_path / "state", checkpoint.optimizer_tensors(optimizer))
    saved = checkpoint.read(tmp_path / "state")
    assert saved["0.exp_avg"].is_contiguous() and saved["0.step"].ndim == 0
    other = build_optimizer("adam", net)
    checkpoint.load_optimizer(other, saved, tmp_path / "state")
    weight = net[0].weight
    moment = other.state[weight]["exp_avg"]
    assert moment.stride() == weight.stride() != saved["0.exp_avg"].stride()
    assert torch.equal(moment, optimizer.state[weight]["exp_avg"])


def test_prefixes_separate_optimizers(tmp_path):
    net = build_net()
    first, second = build_optimizer("sgd", net), build_optimizer("adam", net)
    for optimizer in (first, second):
        train(net, optimizer, 1, seed=1)
    tensors = checkpoint.optimizer_tensors(first, "a.") | checkpoint.optimizer_tensors(second, "b.")
    assert {"a.0.momentum_buffer", "b.0.exp_avg", "b.0.step"} <= tensors.keys()
    other = build_optimizer("sgd", net)
    checkpoint.load_optimizer(other, tensors, tmp_path / "state", "a.")
    assert other.state[net[0].weight].keys() == {"momentum_buffer"}


@pytest.mark.parametrize(
    "name", ["step", "0.exp_avg.1", "x.exp_avg", "99.exp_avg", "0.exp_avg"]
)  # the last has another shape
def test_load_optimizer_refuses_the_state_of_another_model(tmp_path, name):
    optimizer = build_optimizer("adam", build_net())
    with pytest.raises(UserError, match="state is of another model or optimizer"):
        checkpoint.load_optimizer(optimizer, {name: torch.zeros(1, 3, 3, 3)}, tmp_path / "state")


def test_load_module_copies_in_place(tmp_path):
    net = build_net()
    checkpoint.write(tmp_path / "net", {k: v + 1 for k, v in net.state_dict().items()})
    weight = net[0].weight
    before = weight.detach().clone()
    checkpoint.load_module(net, tmp_path / "net")
    assert net[0].weight is weight and torch.equal(weight, before + 1)


def test_copy_tensors_accepts_parameters(tmp_path):
    parameter = nn.Parameter(torch.zeros(2))
    checkpoint.copy_tensors({"a": parameter}, {"a": torch.ones(2)}, tmp_path / "state")
    assert parameter.tolist() == [1, 1] and parameter.requires_grad


@pytest.mark.parametrize(
    ("saved", "difference"),
    [
        ({"a": torch.zeros(3)}, r"a is \(3,\), the config expects \(2,\)"),
        ({}, r"a is absent, the config expects \(2,\)"),
        ({"a": torch.zeros(2), "b": torch.zeros(1)}, r"b is \(1,\), the config expects absent"),
    ],
)
def test_copy_tensors_refuses_other_tensors_and_changes_nothing(tmp_path, saved, difference):
    target = {"a": torch.ones(2)}
    with pytest.raises(UserError, match=f"state is of another model: {difference}"):
        checkpoint.copy_tensors(target, saved, tmp_path / "state")
    assert target["a"].tolist() == [1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_check_finite_names_the_weight_and_the_step(value):
    net = build_net()
    checkpoint.check_finite(net, 7)
    net[1].running_var[0] = value
    with pytest.raises(UserError, match="1.running_var became NaN or infinite at step 7: lower"):
        checkpoint.check_finite(net, 7)


def test_read_refuses_other_files_without_executing_them(tmp_path):
    bomb = PickleBomb(tmp_path / "harm")
    (tmp_path / "pickle").write_bytes(pickle.dumps(bomb))
    (tmp_path / "empty").write_bytes(b"")
    for name in ("pickle", "empty", "missing"):
        with pytest.raises(UserError, match=f"{name} is not a readable checkpoint"):
            checkpoint.read(tmp_path / name)
    assert not bomb.path.exists()


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path, "digits", "t", {})


def test_restore_loads_what_save_wrote(run):
    net = build_net()
    optimizers = {"a": build_optimizer("adam", net)}
    total = torch.tensor(5.0)
    assert checkpoint.restore(run, net, optimizers, {"sum.loss": total}) is None
    with run:
        train(net, optimizers["a"], 2, seed=1)
        run.log("train", 2, loss=1.0)
        checkpoint.save(run, 2, net, optimizers, {"sum.loss": total}, {"n": "1"}, epoch=1)
        expected = {name: value.clone() for name, value in net.state_dict().items()}
        train(net, optimizers["a"], 1, seed=2)
        run.log("train", 3, loss=1.0)
        total += 1
        latest = checkpoint.restore(run, net, optimizers, {"sum.loss": total})
    assert (latest.step, latest.progress, float(total)) == (2, {"epoch": 1}, 5.0)
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())
    assert optimizers["a"].state[net[0].weight]["step"] == 2
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 1


def test_save_refuses_nan_and_keeps_the_previous_checkpoint(run):
    net = build_net()
    with run:
        checkpoint.save(run, 1, net, {}, {})
        net[0].weight.data[0] = torch.nan
        with pytest.raises(UserError, match="0.weight became NaN or infinite at step 2"):
            checkpoint.save(run, 2, net, {}, {})
    assert run.latest_checkpoint().step == 1


def test_restore_refuses_other_tensors_and_optimizers(run):
    net = build_net()
    optimizer = build_optimizer("adam", net)
    with run:
        train(net, optimizer, 1, seed=1)
        checkpoint.save(run, 1, net, {"a": optimizer}, {"sum.loss": torch.zeros(())})
        with pytest.raises(UserError, match=r"sum.loss is \(\), the config expects absent"):
            checkpoint.restore(run, net, {"a": optimizer}, {"sum.norm": torch.zeros(())})
        other = build_net(16)
        with pytest.raises(UserError, match="model.safetensors is of another model"):
            checkpoint.restore(run, other, {"a": build_optimizer("adam", other)}, {})
