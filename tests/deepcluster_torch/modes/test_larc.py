"""LARC against updates by hand."""

import numpy as np
import torch
from torch import nn

from deepcluster_torch import config
from deepcluster_torch.modes.larc import LARC
from deepcluster_torch.modes.state import body_optimizer

LR, DECAY = 0.5, 0.1


def test_first_step_has_the_length_of_the_weights():
    # |w| = 5, |g| = 1; rate 0.001 * 5 / (1 + 0.1 * 5); g + 0.1 w = (0.3, 1.4)
    weights = nn.Parameter(torch.tensor([3.0, 4.0]))
    weights.grad = torch.tensor([0.0, 1.0])
    LARC([weights], LR, 0.9, DECAY).step()
    rate = 0.001 * 5 / 1.5
    expected = [3 - LR * rate * 0.3, 4 - LR * rate * 1.4]
    torch.testing.assert_close(weights.detach(), torch.tensor(expected), rtol=1e-6, atol=0)


def test_steps_match_numpy_for_matrices_and_zero_tensors():
    random = np.random.default_rng(0)
    start = [random.normal(size=(4, 3)), np.zeros(3), random.normal(size=5)]  # zero: a new bias
    gradients = [[random.normal(size=w.shape) for w in start] for _ in range(3)]
    for step in gradients:
        step[2][:] = 0  # as of a layer that the loss does not depend on: not even decayed
    parameters = [nn.Parameter(torch.from_numpy(w.copy())) for w in start]
    unused = nn.Parameter(torch.ones(2))  # without a gradient
    optimizer = LARC([*parameters, unused], LR, 0.9, DECAY)
    expected, velocities = [w.copy() for w in start], [np.zeros_like(w) for w in start]
    for step in gradients:
        for parameter, g in zip(parameters, step, strict=True):
            parameter.grad = torch.from_numpy(g.copy())
        optimizer.step()
        for w, v, g in zip(expected, velocities, step, strict=True):
            lengths = np.linalg.norm(w), np.linalg.norm(g)
            if min(lengths) > 0:
                rate = 0.001 * lengths[0] / (lengths[1] + DECAY * lengths[0] + 1e-8)
                g = rate * (g + DECAY * w)
            v[:] = 0.9 * v + g
            w -= LR * v
    for parameter, w in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-9)
    assert unused.tolist() == [1, 1]
    np.testing.assert_array_equal(expected[2], start[2])


def test_larc_is_an_optimizer_of_trunk_and_projection():
    net = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("trunk", "projection", "prototypes")})
    training = config.Training(optimizer="larc", lr=0.3, momentum=0.8, weight_decay=1e-6)
    optimizer = body_optimizer(training, net)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, LARC) and optimizer.decay == 1e-6
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.8, 0)
    assert len(group["params"]) == 4
