"""A training step, the schedules, and the warning of a collapse."""

import logging

import pytest
import torch
from torch.nn import functional as F

from common.config import load_config
from tests.unsup_seg_torch.dino.tiny import colored_squares, make_config
from unsup_seg_torch import config as unsup_config
from unsup_seg_torch.config import CONFIGS
from unsup_seg_torch.dino import config, data, loss, probes, train

CPU = torch.device("cpu")


@pytest.fixture
def pixels():
    return colored_squares()


def test_step_adds_koleo_of_the_students_global_views():
    views, values = [torch.rand(8, 3, side, side) for side in (16, 16, 8)], []
    for weight in (0.0, 0.5):
        cfg = make_config(koleo=weight, precision="float32")
        state = train.initial_state(cfg, CPU)
        koleo = sum(map(loss.koleo, state.net.student.features(views[:2])))
        values.append(float(train.train_step(cfg, state, views, 12, 3)["loss"]))
    assert values[1] - values[0] == pytest.approx(0.5 * float(koleo.detach()), rel=1e-4)


def test_bfloat16_unfuses_attention_and_has_similar_gradients():
    views, gradients = [torch.rand(4, 3, side, side) for side in (16, 16, 8)], []
    for precision in ("float32", "bfloat16"):
        cfg = make_config(precision=precision)
        state = train.initial_state(cfg, CPU)
        fused = {m.fused_attn for m in state.net.modules() if hasattr(m, "fused_attn")}
        assert fused == {precision == "float32"}
        train.train_step(cfg, state, views, 12, 3)
        gradients.append(state.net.student.encoder.net.blocks[0].attn.qkv.weight.grad.clone())
    cosine = F.cosine_similarity(*(gradient.flatten().double() for gradient in gradients), dim=0)
    assert float(cosine) > 0.98


def test_schedules_at_their_corners():
    training = config.Training(
        lr=2.0, batch_size=128, final_lr=0.1, warmup=0.2, momentum=0.9,  # the rate used is 1
        weight_decay=0.0, final_weight_decay=1.0, teacher_temperature=0.02,
        final_teacher_temperature=0.06, teacher_warmup=0.5,
    )  # fmt: skip

    def values(name, steps):
        return [train.schedules(training, step, 100)[name] for step in steps]

    assert values("lr", (0, 10, 20, 60, 100)) == pytest.approx([0, 0.5, 1, 0.55, 0.1])
    assert values("weight_decay", (0, 50, 100)) == pytest.approx([0, 0.5, 1])
    assert values("momentum", (0, 50, 100)) == pytest.approx([0.9, 0.95, 1])
    temperatures = values("teacher_temperature", (0, 25, 50, 100))
    assert temperatures == pytest.approx([0.02, 0.04, 0.06, 0.06])


@pytest.mark.parametrize(
    ("name", "rate"), [("dino_digits.yml", 1e-3), ("cifar10.yml", 1e-3), ("dino_folder.yml", 5e-4)]
)
def test_highest_rate_of_the_shipped_configs_is_that_of_their_results(name, rate):
    training = load_config(CONFIGS, unsup_config.__file__, name).training
    step = training.warmup * 1000  # the last one of the warmup
    assert train.schedules(training, int(step), 1000)["lr"] == rate


def test_learning_rate_is_proportional_to_the_batch_size_but_the_last_is_not():
    rates = [
        [
            train.schedules(config.Training(batch_size=n, warmup=0.1), step, 100)["lr"]
            for step in (5, 10, 100)
        ]
        for n in (256, 1024)
    ]
    assert rates[0] == pytest.approx([2.5e-4, 5e-4, 1e-6])  # the paper's at batches of 256
    assert rates[1] == pytest.approx([1e-3, 2e-3, 1e-6])  # and of 1,024


def test_gradients_are_clipped_per_parameter():
    long, short, unused = (torch.nn.Parameter(torch.zeros(4)) for _ in range(3))
    long.grad, short.grad = torch.full((4,), 5.0), torch.full((4,), 0.5)  # lengths 10 and 1
    train.clip_gradients(torch.optim.SGD([long, short, unused], 1.0), 3.0)
    assert float(long.grad.norm()) == pytest.approx(3.0, rel=1e-4)
    assert short.grad.tolist() == [0.5] * 4


def test_step_updates_all_but_the_frozen_last_layer(pixels):
    cfg = make_config()
    state = train.initial_state(cfg, CPU)
    views = next(data.batches(pixels, cfg.training, 0))
    before = {k: v.clone() for k, v in state.net.state_dict().items()}
    state.step = 1  # the learning rate of step 0 is 0
    train.train_step(cfg, state, views, n_steps=12, n_batches=3)
    changed = {k for k, v in state.net.state_dict().items() if not torch.equal(v, before[k])}
    last = "head.last.parametrizations.weight.original1"
    assert f"student.{last}" not in changed and f"teacher.{last}" not in changed
    assert {"center", "student.head.layers.0.weight", "student.encoder.net.cls_token"} <= changed
    assert any(name.startswith("teacher.encoder") for name in changed)
    state.step = 3  # the second epoch
    train.train_step(cfg, state, views, n_steps=12, n_batches=3)
    assert not torch.equal(state.net.state_dict()[f"student.{last}"], before[f"student.{last}"])


def test_norms_and_biases_have_no_weight_decay():
    state = train.initial_state(make_config(), CPU)
    decayed, others = state.optimizers["student"].param_groups
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in others["params"]) and others["weight_decay"] == 0


def fit(pixels, momentum):
    cfg = make_config(
        n_epochs=30, lr=6.4e-2, momentum=momentum, color=0.0, blur=0.0, small_scale=(0.3, 0.6)
    )
    state, history = train.initial_state(cfg, CPU), []
    for _ in range(cfg.training.n_epochs):
        history += [values for values in train.train_epoch(cfg, state, pixels) if values]
    assert (state.epoch, state.batch, state.step) == (30, 0, 90)
    return cfg, state, history[-1]


def test_slow_teacher_learns_features_that_separate_colors(pixels):
    cfg, state, metrics = fit(pixels, 0.99)
    assert metrics["information"] > 0.05
    features = probes.features(state.net.eval().teacher.encoder, pixels, cfg.training)
    unit = F.normalize(features - features.mean(0))
    cosines = unit @ unit.T
    is_same_color = torch.arange(24)[:, None] % 3 == torch.arange(24) % 3
    assert cosines[is_same_color].mean() > 0.5 and cosines[~is_same_color].mean() < 0


def test_fast_teacher_collapses_with_a_warning(pixels, caplog):
    cfg, state, metrics = fit(pixels, 0.9)
    assert metrics["information"] < train.MIN_INFORMATION
    train.warn_on_collapse(cfg.training, state, metrics, n_steps=90)
    assert "collapse" in caplog.text


def test_collapse_is_warned_of_once_after_the_warmup(caplog):
    training = make_config().training
    state = train.initial_state(make_config(), CPU)
    collapsed = {"entropy": 0.99, "information": 0.0001}
    with caplog.at_level(logging.WARNING):
        train.warn_on_collapse(training, state, collapsed, n_steps=12)
        assert not caplog.records, "the first steps are not checked"
        state.step = 6
        informative = {"entropy": 0.5, "information": 0.2}
        train.warn_on_collapse(training, state, informative, n_steps=12)
        assert not caplog.records
        train.warn_on_collapse(training, state, collapsed, n_steps=12)
        train.warn_on_collapse(training, state, collapsed, n_steps=12)
    assert len(caplog.records) == 1 and "outputs are uniform" in caplog.text
