"""Whole checkpoints of DINO's authors: all of it loads and their training continues, or refused."""

import copy
import logging
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common import UserError
from tests.entry_scripts import PickleBomb
from tests.unsup_seg_torch.dino import authors
from unsup_seg_torch import DINOFeatures
from unsup_seg_torch.dino import config, model, train
from unsup_seg_torch.vit import encoder as encoders
from unsup_seg_torch.vit import weights as vit_weights

CPU = torch.device("cpu")


def make_config(path, n_epochs=4, norm_last_layer=True, continued=False, **sizes):
    sizes = authors.MODEL | {"norm_last_layer": norm_last_layer} | sizes
    return config.Config(
        model=config.Model(weights=str(path), continue_training=continued, **sizes),
        training=config.Training(large=16, small=8, n_small=2, batch_size=8, n_epochs=n_epochs),
    )


def write(folder, change=lambda content: content, **options):
    content, student, optimizer = authors.content(**options)
    torch.save(change(content), folder / "checkpoint.pth")
    return folder / "checkpoint.pth", content, student, optimizer


def load(path, **options):
    cfg = make_config(path, **options)
    net = model.build(cfg.model, 16)
    model.load_start_weights(cfg.model, net)
    return net


def reference_head(features, tensors):
    """Outputs (k,) of features (d,), in float64, one unit at a time."""
    x = features.double().numpy()
    tensors = {name: value.double().numpy() for name, value in tensors.items()}
    for layer in (0, 2, 4):
        weight, bias = (tensors[f"head.mlp.{layer}.{kind}"] for kind in ("weight", "bias"))
        x = np.array([row @ x + b for row, b in zip(weight, bias, strict=True)])
        if layer < 4:
            x = np.array([0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x])
    x = x / np.linalg.norm(x)
    lengths, rows = (tensors[f"head.last_layer.weight_{kind}"] for kind in "gv")
    cosines = [row @ x / np.linalg.norm(row) for row in rows]
    return np.array(cosines) * lengths[:, 0]


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_student_teacher_heads_and_center_are_the_authors(tmp_path, norm_last_layer):
    path, content, _, _ = write(tmp_path, norm_last_layer=norm_last_layer)
    net = load(path, norm_last_layer=norm_last_layer).eval()
    assert net.center.tolist() == list(range(24))
    images = torch.rand(2, 3, 16, 16)
    for part in ("student", "teacher"):
        network = net.get_submodule(part)
        saved = {name.removeprefix("module."): v for name, v in content[part].items()}
        own = network.encoder.net.state_dict()
        assert own.keys() == {k.removeprefix("backbone.") for k in saved if "backbone" in k}
        assert all(torch.equal(own[name], saved[f"backbone.{name}"]) for name in own)
        with torch.no_grad():
            features, outputs = network.encoder(images)[:, 0], network([images])[0]
        for image in range(2):
            expected = reference_head(features[image], saved)
            np.testing.assert_allclose(outputs[image], expected, atol=1e-5)
    norms = [each for each in net.modules() if isinstance(each, torch.nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-6}, "the authors' vision transformers"


@pytest.mark.parametrize("norm_last_layer", [True, False])
@pytest.mark.parametrize("is_old", [False, True])  # old PyTorch counts steps by integers
def test_training_continues_with_the_same_update(tmp_path, norm_last_layer, is_old):
    def change(content):
        content["optimizer"] = copy.deepcopy(content["optimizer"])
        for state in content["optimizer"]["state"].values():
            state["step"] = int(state["step"]) if is_old else state["step"]
        return content

    path, _, student, optimizer = write(tmp_path, change, norm_last_layer=norm_last_layer)
    cfg = make_config(path, norm_last_layer=norm_last_layer, continued=True)
    state = train.initial_state(cfg, CPU)
    model.load_start_weights(cfg.model, state.net)
    train.continue_training(cfg, state, n_images=24)
    assert (state.epoch, state.batch, state.step) == (2, 0, 6)  # three batches per epoch
    (ours,) = state.optimizers.values()
    for group, decay in zip(ours.param_groups, (0.1, 0.0), strict=True):
        group["lr"], group["weight_decay"] = 1e-3, decay
    own = dict(zip(student, _in_their_order(state.net.student), strict=True))
    for name, gradient in authors.gradients(student, seed=9).items():
        own[name].grad = gradient if own[name].requires_grad else None
    ours.step()
    authors.step(student, optimizer, seed=9)
    for name, parameter in student.items():
        torch.testing.assert_close(own[name], parameter, rtol=1e-5, atol=1e-7)


def _in_their_order(network):
    """Ours, by the names of the authors' encoder and head."""
    named = dict(network.named_parameters())
    last = "head.last.parametrizations.weight.original"
    for name, _ in authors.shapes():
        name = name.replace("backbone.", "encoder.net.").replace("mlp.", "layers.", "head" in name)
        name = name.replace("head.last_layer.weight_g", f"{last}0")
        yield named[name.replace("head.last_layer.weight_v", f"{last}1")]


def test_continued_training_runs_only_the_epochs_left(tmp_path):
    path, _, _, _ = write(tmp_path)
    cfg = make_config(path, continued=True)
    state = train.initial_state(cfg, CPU)
    model.load_start_weights(cfg.model, state.net)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3)).astype(np.uint8)
    train.continue_training(cfg, state, len(pixels))
    for _ in range(state.epoch, cfg.training.n_epochs):
        list(train.train_epoch(cfg, state, pixels))
    assert (state.epoch, state.step) == (4, 12)
    moments = state.optimizers["student"].state_dict()["state"]
    assert {int(moment["step"]) for moment in moments.values()} == {3 + 6}
    assert all(p.isfinite().all() for p in state.net.parameters())


def drop(*names):
    return lambda content: {k: v for k, v in content.items() if k not in names}


def drop_tensor(part, name):
    def change(content):
        del content[part][name]
        return content

    return change


def add_tensor(part, name):
    def change(content):
        content[part][name] = torch.ones(3)
        return content

    return change


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (drop("dino_loss"), {}, "lacks 1 of the 1 weights of the center"),
        (drop_tensor("teacher", "head.mlp.2.bias"), {}, "lacks 1 of the .* such as layers.2.bias"),
        (drop_tensor("student", "module.backbone.norm.bias"), {}, "lacks 1 of .* norm.bias"),
        (
            add_tensor("student", "module.head.mlp.1.weight"),
            {},
            "1 weights that the head .*layers.1.weight",
        ),
        (add_tensor("teacher", "backbone.blocks.1.ls1.gamma"), {}, "such as blocks.1.ls1.gamma"),
        (None, {"n_outputs": 25}, r"original0 is \(24, 1\), the head .* expects \(25, 1\)"),
        (None, {"hidden": 40}, r"layers.0.bias is \(32,\), the head of model.hidden"),
        (None, {"depth": 3}, "has 2 blocks, .* has 3"),
        (None, {"n_heads": 2}, "has 1 heads, the config's model.n_heads makes 2"),
    ],
)
def test_half_and_other_checkpoints_are_refused_and_nothing_changes(
    tmp_path, change, options, reason
):
    path, _, _, _ = write(tmp_path, *([change] if change else []))
    cfg = make_config(path, **options)
    net = model.build(cfg.model, 16)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=reason):
        model.load_start_weights(cfg.model, net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_lengths_of_the_last_layer_need_the_option_that_trains_them(tmp_path):
    path, _, _, _ = write(tmp_path, norm_last_layer=False)
    with pytest.raises(UserError, match="not of length 1: set model.norm_last_layer false"):
        load(path)


@pytest.mark.parametrize(
    ("change", "n_epochs", "reason"),
    [
        (drop("optimizer"), 4, "has no epoch and optimizer"),
        (drop("epoch"), 4, "has no epoch and optimizer"),
        (None, 2, "was trained for 2 epochs: expected a larger training.n_epochs, it is 2"),
        (None, 0, "was trained for 2 epochs"),
    ],
)
def test_training_that_cannot_continue_is_refused(tmp_path, change, n_epochs, reason):
    path, _, _, _ = write(tmp_path, *([change] if change else []))
    cfg = make_config(path, n_epochs, continued=True)
    state = train.initial_state(cfg, CPU)
    with pytest.raises(UserError, match=reason):
        train.continue_training(cfg, state, 24)


def test_optimizer_of_other_parameters_is_refused(tmp_path):
    path, _, _, _ = write(tmp_path, norm_last_layer=False)
    state = train.initial_state(make_config(path), CPU)  # whose lengths are not trained
    with pytest.raises(UserError, match="expected AdamW with .* see model.norm_last_layer"):
        model.load_training(state.optimizers["student"], path)

    def sgd(content):
        for moments in content["optimizer"]["state"].values():
            moments["momentum_buffer"] = moments.pop("exp_avg")
        return content

    path, _, _, _ = write(tmp_path, sgd)
    with pytest.raises(UserError, match="with exp_avg_sq, momentum_buffer, step: expected AdamW"):
        model.load_training(state.optimizers["student"], path)


def test_encoder_alone_goes_into_both_networks(tmp_path, caplog):
    """As the authors' file of a backbone, and a teacher without a student."""
    content, _, _ = authors.content()
    tensors = {k.removeprefix("backbone."): v for k, v in content["teacher"].items()}
    backbone = {k: v for k, v in tensors.items() if not k.startswith("head")}
    for saved in (backbone, {"teacher": content["teacher"]}):
        torch.save(saved, tmp_path / "a.pth")
        with caplog.at_level(logging.INFO):
            net = load(tmp_path / "a.pth")
        assert "encoders only, heads have random weights" in caplog.text
        for network in (net.student, net.teacher):
            own = network.encoder.net.state_dict()
            assert all(torch.equal(own[name], value) for name, value in backbone.items())


def test_whole_run_of_ours_loads_whole(tmp_path):
    torch.manual_seed(3)
    saved = model.build(config.Model(**authors.MODEL), 16)
    for parameter in saved.teacher.parameters():
        parameter.add_(torch.randn_like(parameter))
    saved.teacher.head.last.parametrizations.weight.original0.fill_(1)
    saved.center.normal_()
    path = tmp_path / "model.safetensors"
    save_file(saved.state_dict(), path, saved.teacher.encoder.describe())
    net = load(path)
    for name, value in net.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name])


def test_other_models_take_the_teachers_encoder(tmp_path):
    path, content, _, _ = write(tmp_path)
    encoder = encoders.build(None, (16, 16), patch_size=4, width=64, depth=2)
    vit_weights.load(encoder, path)
    assert torch.equal(encoder.net.cls_token, content["teacher"]["backbone.cls_token"])


def test_estimator_takes_a_whole_checkpoint(tmp_path):
    path, content, _, _ = write(tmp_path)
    sizes = {k: v for k, v in authors.MODEL.items() if k != "drop_path"}
    image = np.zeros((16, 16, 3), np.uint8)
    fitted = DINOFeatures(weights=str(path), large=16, small=8, n_epochs=0, **sizes).fit([image])
    pixels = torch.zeros(1, 3, 16, 16)
    expected = load(path).eval()(pixels).detach().numpy()
    np.testing.assert_allclose(fitted.transform([image]), expected, atol=1e-5)


def test_code_in_place_of_the_command_line_is_refused_and_not_executed(tmp_path):
    bomb = tmp_path / "harm"

    def change(content):
        content["args"].hook = PickleBomb(bomb)
        return content

    path, _, _, _ = write(tmp_path, change)
    with pytest.raises(UserError, match="holds more than tensors and was not loaded"):
        load(path)
    assert not bomb.exists()
