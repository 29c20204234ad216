import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from common import UserError
from common.pytorch import checkpoint
from dti_torch import config, loss, model
from tests.dti_torch.oracle import Oracle

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = ("identity", "color", "affine", "projective", "tps", "morpho")
ROUNDING = {"rtol": 0, "atol": 1e-12}  # float64, sums of a few thousand terms below 100


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trained(cfg, shape=(1, 9, 12), n_active=None):
    """A model whose transformations are no longer the identity."""
    net = model.build(cfg, torch.rand(cfg.n_prototypes, *shape))
    net.n_active = n_active or len(cfg.transformations)
    for regressors in net.regressors.values():
        nn.init.normal_(regressors.weights[2], std=0.05)
        nn.init.normal_(regressors.biases[2], std=0.05)
    return net


def small(**options):
    return config.Model(**{"n_prototypes": 4, "encoder": "strided", "kernel_size": 3} | options)


def assert_matches_oracle(net, cfg, images):
    oracle = Oracle(cfg, net.prototypes.detach())
    oracle.copy_from(net)
    ours, _ = net.loss(images)
    ours.backward()
    expected = oracle.loss(images)
    expected.backward()
    torch.testing.assert_close(ours, expected, **ROUNDING)
    gradients = oracle.gradients()
    for name, parameter in net.named_parameters():
        gradient = gradients.get(name)
        assert (parameter.grad is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, **ROUNDING, msg=name)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"transformations": EVERYTHING}, (1, 9, 12)),
        ({"transformations": EVERYTHING[::-1]}, (3, 9, 12)),
        ({"transformations": EVERYTHING, "legacy": True, "kernel_size": 7}, (3, 8, 8)),
        ({"gaussian_weights_std": 3.0, "padding": "zeros"}, (1, 9, 12)),
        ({"encoder": "resnet20"}, (3, 8, 8)),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["dtikmeans", "dtigmm"])
def test_loss_and_gradients_match_the_oracle(name, options, shape, double):
    cfg = small(name=name, **options)
    net = trained(cfg, shape)
    net.min_responsibility = 0.0
    assert_matches_oracle(net, cfg, torch.rand(8, *shape))


@pytest.mark.parametrize("n_active", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["dtikmeans", "dtigmm"])
def test_each_curriculum_stage_matches_the_oracle(name, n_active, double):
    cfg = small(name=name, transformations=("identity", "affine", "morpho", "tps"))
    net = trained(cfg, n_active=n_active)
    net.min_responsibility = 0.0
    assert_matches_oracle(net, cfg, torch.rand(8, 1, 9, 12))


def test_inactive_parts_have_no_gradient_and_losers_a_zero_one():
    cfg = small(n_prototypes=6, transformations=("identity", "affine", "tps"))
    net = trained(cfg, n_active=2)
    value, distances = net.loss(torch.rand(4, 1, 9, 12))  # at least two of six win nothing
    value.backward()
    losers = torch.bincount(distances.argmin(1), minlength=6) == 0
    assert all(p.grad is None for p in net.regressors["2"].parameters())
    for parameter in (net.prototypes, *net.regressors["1"].parameters()):
        assert not parameter.grad[losers].any() and parameter.grad[~losers].any()


def test_encoder_does_not_run_without_parameters_to_predict():
    net = trained(small(), n_active=1)
    value, _ = net.loss(torch.rand(6, 1, 9, 12))
    value.backward()
    assert all(p.grad is None for p in net.encoder.parameters())
    assert all(b == 0 for name, b in net.encoder.named_buffers() if "num_batches" in name)


def test_mixture_drops_only_negligible_responsibilities(double):
    cfg = small(name="dtigmm", n_prototypes=6)
    images = torch.rand(16, 1, 9, 12)
    net = trained(cfg).eval()
    net.sigmas.data.fill_(0.1)
    sparse, _ = net.loss(images)
    net.min_responsibility = 0.0
    dense, _ = net.loss(images)
    distances = net.all_distances(images, net.predict_parameters(images))
    gammas = loss.responsibilities(distances, net.mixing_logits.detach())
    is_dropped = gammas <= model.MIN_RESPONSIBILITY
    assert is_dropped.any() and (gammas[~is_dropped] < 0.5).any()
    dropped = (gammas * distances)[is_dropped].sum() / len(images)
    torch.testing.assert_close(dense - sparse, dropped, **ROUNDING)
    assert dropped < 6e-6 * distances.max()


@pytest.mark.parametrize("name", ["dtikmeans", "dtigmm"])
def test_chunked_distances_equal_unchunked(name, monkeypatch):
    net, images = trained(small(name=name)).eval(), torch.rand(8, 1, 9, 12)
    parameters = net.predict_parameters(images)
    together = net.all_distances(images, parameters)
    monkeypatch.setattr(model, "MAX_VALUES", 1)
    assert torch.equal(net.all_distances(images, parameters), together)


def test_distance_is_the_error_of_the_warped_prototype():
    net, images = trained(small(), (3, 9, 12)).eval(), torch.rand(5, 3, 9, 12)
    distances, warped = net(images), net.warped_prototypes(images)
    assert warped.shape == (5, 4, 3, 9, 12)
    expected = (images[:, None] - warped).square().mean((2, 3, 4))
    torch.testing.assert_close(distances, expected)
    value, loss_distances = net.loss(images)
    torch.testing.assert_close(loss_distances, distances)
    torch.testing.assert_close(value, distances.min(1).values.mean())


def test_mixture_distance_includes_the_mixing_weight():
    net, images = trained(small(name="dtigmm")).eval(), torch.rand(5, 1, 9, 12)
    before = net(images)
    net.mixing_logits.data[2] += 3
    after, weights = net(images), net.mixing_logits.log_softmax(0).detach()
    # they were equal, log 1/4 each
    torch.testing.assert_close(before - after, (weights + torch.tensor(4.0).log()).expand(5, 4))


def test_align_inverts_warp_to_images():
    net = trained(small(transformations=("identity", "color"))).eval()
    images = torch.rand(5, 1, 9, 12)
    prototype = torch.tensor([3, 0, 0, 1, 2])
    parameters = net.predict_parameters(images)
    warped = net.warp_to_images(prototype, parameters)
    expected = net.warped_prototypes(images)[torch.arange(5), prototype]
    torch.testing.assert_close(warped, expected)
    aligned = net.align(images, prototype, parameters)
    gain_and_bias = parameters[1][prototype, torch.arange(5)]
    gain, bias = gain_and_bias[:, :, None, None].chunk(2, dim=1)
    torch.testing.assert_close(aligned * (1 + gain) + bias, images)


def test_sigmas_ignore_color_and_morphology():
    net = trained(small(name="dtigmm", transformations=("color", "morpho")))
    parameters = net.predict_parameters(torch.rand(3, 1, 9, 12))
    sigmas = net.sigmas[:, None]
    assert torch.equal(net.transform_sigmas(sigmas, parameters), sigmas)


def test_bfloat16_encoder_gives_a_loss_close_to_float32():
    images = torch.rand(4, 1, 8, 8)
    net = trained(small(transformations=("identity", "affine")), (1, 8, 8))
    expected, _ = net.loss(images)
    net.encoder_dtype = torch.bfloat16
    value, _ = net.loss(images)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=0.02)  # 8 bits of the features
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_loading_weights_of_another_model_names_the_difference(tmp_path):
    other = model.build(small(n_prototypes=5), torch.rand(5, 1, 9, 12))
    checkpoint.write(tmp_path / "weights", other.state_dict())
    net = model.build(small(), torch.rand(4, 1, 9, 12))
    with pytest.raises(UserError, match=r"prototypes is \(5, 1, 9, 12\), the config expects \(4"):
        checkpoint.load_module(net, tmp_path / "weights")


PEAK_MEMORY = """
import resource
import torch
from dti_torch import config, model
transformations = ("identity", "color", "projective")
cfg = config.Model(n_prototypes=40, encoder="strided", transformations=transformations)
net = model.build(cfg, torch.rand(40, 3, 128, 128))
net.n_active = 3
loss, _ = net.loss(torch.rand(64, 3, 128, 128))
loss.backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_of_40_color_prototypes_at_128_pixels_is_below_3_gb():
    # transformed for 64 images: 40 x 64 x 3 x 128 x 128 floats, 500 MB, per transformation
    done = subprocess.run(
        [sys.executable, "-c", PEAK_MEMORY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) / 1024 < 3000
