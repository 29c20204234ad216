"""The loss against a loop over pairs of views; center, entropies, KoLeo."""

import itertools
import math

import pytest
import torch

from unsup_seg_torch.dino import loss


def test_loss_is_the_mean_over_pairs_of_different_views():
    torch.manual_seed(0)
    student, teacher, center = torch.randn(5, 3, 7), torch.randn(2, 3, 7), torch.randn(7)
    total, n = 0.0, 0
    for i, j in itertools.product(range(2), range(5)):
        if i == j:
            continue
        n += 1
        for image in range(3):
            p = [math.exp(v) for v in ((teacher[i, image] - center) / 0.04).tolist()]
            q = [math.exp(v) for v in (student[j, image] / 0.1).tolist()]
            pairs = zip(p, q, strict=True)
            total -= sum(a / sum(p) * math.log(b / sum(q)) for a, b in pairs) / 3
    value = loss.dino_loss(student, loss.teacher_targets(teacher, center, 0.04), 0.1)
    assert float(value) == pytest.approx(total / n, rel=1e-5)


def test_gradient_reaches_every_view_of_the_student():
    student = torch.randn(4, 2, 6, dtype=torch.float32, requires_grad=True)
    targets = torch.randn(2, 2, 6).softmax(-1)
    loss.dino_loss(student, targets, 0.1).backward()
    assert (student.grad.abs().sum((1, 2)) > 0).all()


def test_loss_of_uniform_outputs_is_ln_k():
    student, targets = torch.zeros(4, 3, 50), torch.full((2, 3, 50), 1 / 50)
    assert float(loss.dino_loss(student, targets, 0.1)) == pytest.approx(math.log(50))


def test_center_moves_towards_the_mean_output():
    center, teacher = torch.zeros(4), torch.randn(2, 3, 4)
    loss.update_center(center, teacher, 0.9)
    torch.testing.assert_close(center, 0.1 * teacher.mean((0, 1)))


def test_entropies_tell_both_collapses_from_informative_outputs():
    k = 16
    uniform = torch.full((2, 8, k), 1 / k)
    same_peak = torch.zeros(2, 8, k)
    same_peak[..., 3] = 1
    own_peaks = torch.zeros(2, 8, k)
    own_peaks[:, torch.arange(8), torch.arange(8)] = 1
    cases = ((uniform, 1, 1), (same_peak, 0, 0), (own_peaks, 0, 3 / 4))  # ln 8 / ln 16 = 3 / 4
    for targets, entropy, entropy_of_mean in cases:
        values = [float(value) for value in loss.entropies(targets)]
        assert values == pytest.approx([entropy, entropy_of_mean], abs=1e-5)


def test_koleo_is_minus_the_mean_log_distance_to_the_nearest_neighbor():
    features = torch.randn(6, 3, dtype=torch.float64)
    points = list(features / features.norm(dim=1, keepdim=True))
    nearest = [min(math.dist(a, b) for b in points if b is not a) for a in points]
    expected = -sum(map(math.log, nearest)) / 6
    assert float(loss.koleo(features)) == pytest.approx(expected, rel=1e-5)


def test_koleo_spreads_features_and_is_finite_for_equal_ones():
    features = (torch.ones(8, 3) + 0.01 * torch.randn(8, 3)).requires_grad_()
    before = float(loss.koleo(features).detach())
    for _ in range(50):
        (gradient,) = torch.autograd.grad(loss.koleo(features), features)
        features = (features - 0.05 * gradient).detach().requires_grad_()
    assert float(loss.koleo(features).detach()) < before - 1
    for degenerate in (torch.ones(4, 3), torch.ones(1, 3), torch.zeros(4, 3)):
        degenerate.requires_grad_()
        loss.koleo(degenerate).backward()
        assert degenerate.grad.isfinite().all()
