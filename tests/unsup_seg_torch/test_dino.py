"""DINO: the loss against a loop, centring, sharpening, schedules, the head, views, probes."""

import itertools
import logging
import math

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from common import datasets
from unsup_seg_torch import DINO, encoders
from unsup_seg_torch.dino import config as knobs
from unsup_seg_torch.dino import data, loss, model, pictures, probes, train

CPU = torch.device("cpu")
SMALL = {"patch_size": 4, "width": 32, "depth": 1, "n_heads": 2, "hidden": 32, "bottleneck": 16}
SMALL |= {"n_outputs": 24, "drop_path": 0.0}
CROPS = {"large": 16, "small": 8, "n_small": 2}


def settings(model=None, **training):
    training = {"batch_size": 8, "n_epochs": 4} | CROPS | training
    return knobs.Config(
        model=knobs.Model(**SMALL | (model or {})), training=knobs.Training(**training)
    )


@pytest.fixture
def images():
    """Squares of three colours on gray, with noise."""
    random = np.random.default_rng(0)
    found = random.normal(120, 12, (24, 20, 20, 3))
    for i, image in enumerate(found):
        image[4:14, 5:15, i % 3] += 100
    return np.clip(found, 0, 255).astype(np.uint8)


# ---- the loss


def test_the_loss_is_the_mean_over_pairs_of_different_views():
    torch.manual_seed(0)
    student, teacher, centre = torch.randn(5, 3, 7), torch.randn(2, 3, 7), torch.randn(7)
    total, n = 0.0, 0
    for i, j in itertools.product(range(2), range(5)):
        if i == j:
            continue
        n += 1
        for image in range(3):
            p = [math.exp(v) for v in ((teacher[i, image] - centre) / 0.04).tolist()]
            q = [math.exp(v) for v in (student[j, image] / 0.1).tolist()]
            pairs = zip(p, q, strict=True)
            total -= sum(a / sum(p) * math.log(b / sum(q)) for a, b in pairs) / 3
    found = loss.dino_loss(student, loss.targets(teacher, centre, 0.04), 0.1)
    assert float(found) == pytest.approx(total / n, rel=1e-5)


def test_the_gradient_reaches_every_view_of_the_student():
    student = torch.randn(4, 2, 6, dtype=torch.float32, requires_grad=True)
    wanted = torch.randn(2, 2, 6).softmax(-1)
    loss.dino_loss(student, wanted, 0.1).backward()
    assert (student.grad.abs().sum((1, 2)) > 0).all()


def test_what_says_nothing_costs_ln_k():
    student, wanted = torch.zeros(4, 3, 50), torch.full((2, 3, 50), 1 / 50)
    assert float(loss.dino_loss(student, wanted, 0.1)) == pytest.approx(math.log(50))


def test_the_centre_moves_towards_the_mean_output():
    centre, teacher = torch.zeros(4), torch.randn(2, 3, 4)
    loss.update_centre(centre, teacher, 0.9)
    torch.testing.assert_close(centre, 0.1 * teacher.mean((0, 1)))


def test_both_collapses_have_no_information_and_other_entropies():
    k = 16
    uniform = torch.full((2, 8, k), 1 / k)
    same = torch.zeros(2, 8, k)
    same[..., 3] = 1
    different = torch.zeros(2, 8, k)
    different[:, torch.arange(8), torch.arange(8)] = 1
    for wanted, each, of_mean in ((uniform, 1, 1), (same, 0, 0), (different, 0, 3 / 4)):
        found = loss.entropies(wanted)  # ln 8 / ln 16 = 3 / 4
        assert [float(v) for v in found] == pytest.approx([each, of_mean], abs=1e-5)


def test_koleo_is_the_mean_log_of_the_distance_to_the_nearest_other():
    features = torch.randn(6, 3, dtype=torch.float64)
    points = list(features / features.norm(dim=1, keepdim=True))
    nearest = [min(math.dist(a, b) for b in points if b is not a) for a in points]
    expected = -sum(map(math.log, nearest)) / 6
    assert float(loss.koleo(features)) == pytest.approx(expected, rel=1e-5)


def test_koleo_spreads_and_survives_equal_and_lone_features():
    features = (torch.ones(8, 3) + 0.01 * torch.randn(8, 3)).requires_grad_()
    before = float(loss.koleo(features).detach())
    for _ in range(50):
        (gradient,) = torch.autograd.grad(loss.koleo(features), features)
        features = (features - 0.05 * gradient).detach().requires_grad_()
    assert float(loss.koleo(features).detach()) < before - 1
    for hard in (torch.ones(4, 3), torch.ones(1, 3), torch.zeros(4, 3)):
        hard.requires_grad_()
        loss.koleo(hard).backward()
        assert hard.grad.isfinite().all()


def test_a_step_adds_koleo_of_the_students_two_large_views():
    views, found = [torch.rand(8, 3, side, side) for side in (16, 16, 8)], []
    for weight in (0.0, 0.5):
        cfg = settings(koleo=weight, precision="float32")
        state = train.begin(cfg, CPU)
        spread = sum(map(loss.koleo, state.net.student.features(views[:2])))
        found.append(float(train.train_step(cfg, state, views, 12, 3)["loss"]))
    assert found[1] - found[0] == pytest.approx(0.5 * float(spread.detach()), rel=1e-4)


def test_in_bfloat16_attention_is_written_out_and_learns_the_same():
    views, gradients = [torch.rand(4, 3, side, side) for side in (16, 16, 8)], []
    for name in ("float32", "bfloat16"):
        cfg = settings(precision=name)
        state = train.begin(cfg, CPU)
        fused = {m.fused_attn for m in state.net.modules() if hasattr(m, "fused_attn")}
        assert fused == {name == "float32"}
        train.train_step(cfg, state, views, 12, 3)
        gradients.append(state.net.student.encoder.net.blocks[0].attn.qkv.weight.grad.clone())
    cosine = torch.cosine_similarity(*(g.flatten().double() for g in gradients), dim=0)
    assert float(cosine) > 0.98


# ---- the networks


def test_the_last_layers_rows_have_length_1_and_no_gradient_of_length():
    head = model.Head(32, 24, 32, 16)
    torch.testing.assert_close(head.last.weight.norm(dim=1), torch.ones(24))
    lengths = head.last.parametrizations.weight.original0
    assert not lengths.requires_grad
    assert model.Head(32, 24, 32, 16, False).last.parametrizations.weight.original0.requires_grad
    outputs = head(torch.randn(5, 32))
    assert outputs.shape == (5, 24) and outputs.abs().max() <= 1  # cosines


def test_views_of_two_sizes_keep_their_order():
    net = model.build(knobs.Model(**SMALL), 16).eval()
    views = [torch.rand(3, 3, side, side) for side in (16, 16, 8, 8, 8)]
    found = net.student(views)
    assert found.shape == (5, 3, 24)
    for one, view in zip(found, views, strict=True):
        torch.testing.assert_close(one, net.student([view])[0], atol=1e-5, rtol=1e-4)


def test_the_teacher_begins_as_the_student_and_follows_it():
    net = model.build(knobs.Model(**SMALL | {"drop_path": 0.3}), 16).train()
    views = [torch.rand(2, 3, 16, 16)]
    assert torch.equal(net.teacher(views), net.teacher(views)), "nothing is left out at random"
    before = [p.clone() for p in net.teacher.parameters()]
    with torch.no_grad():
        for p in net.student.parameters():
            p.add_(torch.randn_like(p))
    net.follow(0.9)
    trio = zip(before, net.student.parameters(), net.teacher.parameters(), strict=True)
    for old, student, teacher in trio:
        torch.testing.assert_close(teacher, 0.9 * old + 0.1 * student)
        assert not teacher.requires_grad


def test_the_papers_values_are_the_defaults():
    cfg = knobs.Config()
    m, t = cfg.model, cfg.training
    assert (m.hidden, m.bottleneck, m.n_outputs, m.drop_path) == (2048, 256, 65536, 0.1)
    assert (t.temperature, t.teacher_temperature, t.centre_momentum) == (0.1, 0.04, 0.9)
    assert (t.momentum, t.weight_decay, t.final_weight_decay, t.clip) == (0.996, 0.04, 0.4, 3.0)
    assert (t.large, t.small, t.n_small) == (224, 96, 8)
    assert (t.large_scale, t.small_scale) == ((0.4, 1.0), (0.05, 0.4))


# ---- a step


def test_schedules_at_their_corners():
    t = knobs.Training(
        lr=1.0, final_lr=0.1, warmup=0.2, momentum=0.9, weight_decay=0.0, final_weight_decay=1.0,
        teacher_temperature=0.02, final_teacher_temperature=0.06, teacher_warmup=0.5,
    )  # fmt: skip
    found = {step: train.schedules(t, step, 100) for step in (0, 10, 20, 25, 50, 60, 100)}
    assert [found[i]["lr"] for i in (0, 10, 20, 60, 100)] == pytest.approx([0, 0.5, 1, 0.55, 0.1])
    assert [found[i]["weight_decay"] for i in (0, 50, 100)] == pytest.approx([0, 0.5, 1])
    assert [found[i]["momentum"] for i in (0, 50, 100)] == pytest.approx([0.9, 0.95, 1])
    temperatures = [found[i]["teacher_temperature"] for i in (0, 25, 50, 100)]
    assert temperatures == pytest.approx([0.02, 0.04, 0.06, 0.06])


def test_every_parameters_gradient_is_cut_by_itself():
    long, short, none = (torch.nn.Parameter(torch.zeros(4)) for _ in range(3))
    long.grad, short.grad = torch.full((4,), 5.0), torch.full((4,), 0.5)  # lengths 10 and 1
    train.clip(torch.optim.SGD([long, short, none], 1.0), 3.0)
    assert float(long.grad.norm()) == pytest.approx(3.0, rel=1e-4)
    assert short.grad.tolist() == [0.5] * 4


def test_a_step_trains_all_but_the_frozen_last_layer(images):
    cfg = settings()
    state = train.begin(cfg, CPU)
    views = next(data.batches(images, cfg, 0))
    before = {k: v.clone() for k, v in state.net.state_dict().items()}
    state.step = 1  # the rate of step 0 is 0
    train.train_step(cfg, state, views, n_steps=12, n_batches=3)
    changed = {k for k, v in state.net.state_dict().items() if not torch.equal(v, before[k])}
    last = "head.last.parametrizations.weight.original1"
    assert f"student.{last}" not in changed and f"teacher.{last}" not in changed
    assert {"centre", "student.head.layers.0.weight", "student.encoder.net.cls_token"} <= changed
    assert any(name.startswith("teacher.encoder") for name in changed)
    state.step = 3  # the second epoch
    train.train_step(cfg, state, views, n_steps=12, n_batches=3)
    assert not torch.equal(state.net.state_dict()[f"student.{last}"], before[f"student.{last}"])


def test_norms_and_biases_do_not_decay():
    state = train.begin(settings(), CPU)
    decayed, others = state.optimizers["student"].param_groups
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in others["params"]) and others["weight_decay"] == 0


def trained(images, momentum):
    cfg = settings(
        n_epochs=30, lr=2e-3, momentum=momentum, colour=0.0, blur=0.0, small_scale=(0.3, 0.6)
    )
    state, said = train.begin(cfg, CPU), []
    for _ in range(cfg.training.n_epochs):
        said += [values for values in train.train_epoch(cfg, state, images) if values]
    assert (state.epoch, state.batch, state.step) == (30, 0, 90)
    return cfg, state, said[-1]


def test_a_slow_teacher_makes_features_that_tell_the_colours_apart(images):
    cfg, state, last = trained(images, 0.99)
    assert last["information"] > 0.05
    features = probes.features(state.net.eval().teacher.encoder, images, cfg.training)
    unit = torch.nn.functional.normalize(features - features.mean(0))
    alike = unit @ unit.T
    same = torch.arange(24)[:, None] % 3 == torch.arange(24) % 3
    assert alike[same].mean() > 0.5 and alike[~same].mean() < 0


def test_a_teacher_that_is_too_fast_collapses_and_is_found_out(images, caplog):
    cfg, state, last = trained(images, 0.9)
    assert last["information"] < train.COLLAPSED
    train.watch(cfg, state, last, 24)
    assert "a collapse" in caplog.text


def test_a_collapse_is_warned_of_once(caplog):
    cfg = settings()
    state = train.begin(cfg, CPU)
    values = {"entropy": 0.99, "information": 0.0001}
    with caplog.at_level(logging.WARNING):
        train.watch(cfg, state, values, 24)
        assert not caplog.records, "the first steps say nothing yet"
        state.step = 6
        train.watch(cfg, state, {"entropy": 0.5, "information": 0.2}, 24)
        assert not caplog.records
        train.watch(cfg, state, values, 24)
        train.watch(cfg, state, values, 24)
    assert len(caplog.records) == 1 and "outputs are uniform" in caplog.text


# ---- the views


def test_there_are_two_large_views_and_the_small_ones(images):
    views = next(data.batches(images, settings(n_small=3), 0))
    assert [view.shape for view in views] == [(8, 3, 16, 16)] * 2 + [(8, 3, 8, 8)] * 3
    assert all(0 <= float(view.min()) and float(view.max()) <= 1 for view in views)


def test_an_epoch_goes_on_where_it_stopped(images):
    cfg = settings()
    finished_run, rest = (list(data.batches(images, cfg, 1, first)) for first in (0, 1))
    assert len(finished_run) == data.n_batches(cfg.training, 24) == 3
    for one, two in zip(finished_run[1:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert data.n_batches(cfg.training, 5) == 1 and data.n_batches(cfg.training, 15) == 1


def test_crops_have_the_share_of_the_area_and_stay_inside():
    generator = torch.Generator().manual_seed(0)
    tops, lefts, heights, widths = data.crops(500, 40, 60, (0.1, 0.3), generator)
    shares = heights * widths / 2400
    assert 0.099 < float(shares.min()) and float(shares.max()) < 0.301
    assert float(tops.min()) >= 0 and float((tops + heights).max()) <= 40.001
    assert float(lefts.min()) >= 0 and float((lefts + widths).max()) <= 60.001


def test_without_any_strength_a_whole_view_is_the_image(images):
    t = knobs.Training(large=20, flip=False, colour=0.0, blur=0.0)
    shown = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    finished_run = data.view(shown, t, 20, (1.0, 1.0), 0, torch.Generator().manual_seed(0))
    # an area of 1 with another ratio is cut to fit: those with ratio near 1 are left as they are
    same = (finished_run - shown / 255).abs().amax((1, 2, 3)) < 0.2
    assert finished_run.shape == shown.shape and same.any()


def test_a_blur_keeps_the_sum_and_the_identity_stays():
    matrices = data.gaussians(torch.tensor([0.0, 2.0]), 9)
    torch.testing.assert_close(matrices[0], torch.eye(9))
    torch.testing.assert_close(matrices.sum(2), torch.ones(2, 9))
    assert 0 < matrices[1, 4, 4] < 0.5


# ---- what the features are worth


def test_the_vote_is_that_of_a_loop():
    random = np.random.default_rng(0)
    bank, queries = random.normal(size=(30, 5)), random.normal(size=(11, 5))
    labels = random.integers(0, 4, 30)
    expected = []
    for query in queries:
        cosines = [row @ query / np.linalg.norm(row) / np.linalg.norm(query) for row in bank]
        votes = np.zeros(4)
        for i in np.argsort(cosines)[::-1][:7]:
            votes[labels[i]] += math.exp(cosines[i] / probes.TEMPERATURE)
        expected.append(votes.argmax())
    found = probes.vote(*map(torch.from_numpy, (bank, labels, queries)), 7)
    assert found.tolist() == expected


def test_a_linear_probe_finds_a_linear_rule():
    torch.manual_seed(0)
    values = torch.randn(200, 6)
    labels = (values[:, 0] > 0).long()
    assert probes.linear(values[:150], labels[:150], values[150:], labels[150:]) > 0.9


def test_features_are_compared_with_pixels_and_the_untrained_network(images):
    found = datasets.Images(images, np.arange(24) % 3, [str(i) for i in range(24)], None, [], "")
    nets = [model.build(knobs.Model(**SMALL), 16).teacher.encoder.eval() for _ in range(2)]
    report = probes.compare(*nets, settings(), found, None)
    assert (report["n_known"], report["n_asked"]) == (20, 4)
    for name in ("scores", "untrained", "raw_pixels", "centred_pixels"):
        assert report[name].keys() == {"knn_10", "knn_20", "linear"}
        assert all(0 <= value <= 1 for value in report[name].values())
    assert "every fifth image" in report["protocol"]


# ---- weights for and from others


def test_the_teacher_loads_in_timm(tmp_path):
    net = model.build(knobs.Model(**SMALL), 16)

    class Run:
        path = tmp_path

    pictures.export(Run, net.teacher.encoder)
    theirs = VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=1, num_heads=2, num_classes=0
    )
    theirs.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = torch.rand(2, 3, 16, 16)
    encoder = net.teacher.encoder
    torch.testing.assert_close(
        theirs.eval()(encoder.pad(images)), encoder.eval()(images)[:, 0], atol=1e-5, rtol=1e-4
    )
    # a name of timm's takes the file as its own weights, of another image size
    named = encoders.build("test_vit", (32, 32))
    pictures.export(Run, named)
    overlay = {"file": str(tmp_path / "model.safetensors"), "num_classes": 0}
    same = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, img_size=32
    )
    assert torch.equal(same.pos_embed, named.net.pos_embed)


def test_a_checkpoint_of_the_authors_form_loads_here(tmp_path):
    theirs = model.build(knobs.Model(**SMALL | {"width": 64, "n_heads": 1}), 16)
    named = {f"backbone.{k}": v for k, v in theirs.teacher.encoder.net.state_dict().items()}
    head = {"head.mlp.0.weight": torch.ones(2), "head.last_layer.weight_v": torch.ones(2)}
    torch.save({"student": named | head, "teacher": named | head, "epoch": 3}, tmp_path / "c.pth")
    cfg = knobs.Model(**SMALL | {"width": 64, "n_heads": 1, "weights": str(tmp_path / "c.pth")})
    net = model.build(cfg, 16)
    model.start_weights(cfg, net)
    images = torch.rand(1, 3, 16, 16)
    expected = theirs.teacher.encoder.eval()(images)
    for network in (net.student, net.teacher):
        assert torch.equal(network.encoder.eval()(images), expected)


def test_the_module_gives_the_teachers_features():
    net = DINO(encoders.build(None, (16, 16), patch_size=4, width=32, depth=1), 24).eval()
    images = torch.rand(2, 3, 20, 12)
    assert torch.equal(net(images), net.teacher.encoder(images)[:, 0])
