"""Head, student, teacher; weights from the authors' code."""

import torch

from tests.unsup_seg_torch.dino.tiny import MODEL
from unsup_seg_torch import DINO
from unsup_seg_torch.dino import config, model
from unsup_seg_torch.vit import encoder


def test_last_layer_has_rows_of_length_1_without_gradient():
    head = model.Head(32, 24, 32, 16)
    torch.testing.assert_close(head.last.weight.norm(dim=1), torch.ones(24))
    lengths = head.last.parametrizations.weight.original0
    assert not lengths.requires_grad
    assert model.Head(32, 24, 32, 16, False).last.parametrizations.weight.original0.requires_grad
    outputs = head(torch.randn(5, 32))
    assert outputs.shape == (5, 24) and outputs.abs().max() <= 1  # cosines


def test_views_of_two_sizes_keep_their_order():
    net = model.build(config.Model(**MODEL), 16).eval()
    views = [torch.rand(3, 3, side, side) for side in (16, 16, 8, 8, 8)]
    outputs = net.student(views)
    assert outputs.shape == (5, 3, 24)
    for output, view in zip(outputs, views, strict=True):
        torch.testing.assert_close(output, net.student([view])[0], atol=1e-5, rtol=1e-4)


def test_teacher_is_a_moving_average_of_the_student():
    net = model.build(config.Model(**MODEL | {"drop_path": 0.3}), 16).train()
    views = [torch.rand(2, 3, 16, 16)]
    assert torch.equal(net.teacher(views), net.teacher(views)), "the teacher has no drop path"
    before = [p.clone() for p in net.teacher.parameters()]
    with torch.no_grad():
        for p in net.student.parameters():
            p.add_(torch.randn_like(p))
    net.update_teacher(0.9)
    trio = zip(before, net.student.parameters(), net.teacher.parameters(), strict=True)
    for old, student, teacher in trio:
        torch.testing.assert_close(teacher, 0.9 * old + 0.1 * student)
        assert not teacher.requires_grad


def test_defaults_are_the_papers():
    cfg = config.Config()
    m, t = cfg.model, cfg.training
    assert (m.hidden, m.bottleneck, m.n_outputs, m.drop_path) == (2048, 256, 65536, 0.1)
    assert (t.temperature, t.teacher_temperature, t.center_momentum) == (0.1, 0.04, 0.9)
    assert (t.momentum, t.weight_decay, t.final_weight_decay, t.clip) == (0.996, 0.04, 0.4, 3.0)
    assert (t.large, t.small, t.n_small) == (224, 96, 8)
    assert (t.large_scale, t.small_scale) == ((0.4, 1.0), (0.05, 0.4))


def test_forward_returns_the_teachers_features():
    net = DINO(encoder.build(None, (16, 16), patch_size=4, width=32, depth=1), 24).eval()
    images = torch.rand(2, 3, 20, 12)
    assert torch.equal(net(images), net.teacher.encoder(images)[:, 0])
