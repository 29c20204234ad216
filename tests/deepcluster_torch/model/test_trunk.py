import copy

import pytest
import torch
from torch import nn

from common import UserError
from deepcluster_torch import model
from deepcluster_torch.model import heads
from deepcluster_torch.model import trunk as trunk_module


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


SMALL = {"n_hidden": 32, "width": 4, "n_blocks": 1}
TRUNKS = [
    ("alexnet", 64, 5), ("vgg11", 32, 8), ("vgg16", 32, 13), ("resnet18", 32, 5),
    ("resnet50", 32, 5), ("resnet", 8, 5),
]  # fmt: skip


@pytest.mark.parametrize(("c", "sobel"), [(1, False), (3, True)])
@pytest.mark.parametrize(("name", "side", "n_stages"), TRUNKS)
def test_every_trunk_computes_features_of_gray_and_rgb(name, side, n_stages, c, sobel):
    trunk = model.build(name, (c, side, side), sobel=sobel, **SMALL).eval()
    images = torch.rand(2, c, side, side)
    features = trunk(images)
    assert features.shape == (2, trunk.n_features) and features.isfinite().all()
    assert not torch.allclose(features[0], features[1])
    stages = trunk.activations(images)
    assert len(stages) == n_stages and all(values.ndim == 4 for values in stages.values())
    assert trunk.first_filters().shape[1] == (2 if sobel else 3)


def test_layers_have_the_sizes_of_the_paper():
    alexnet = model.build("alexnet", (3, 224, 224), sobel=True)
    assert [part.weight.shape for part in alexnet.body.classifier if hasattr(part, "weight")] == [
        (4096, 9216),
        (4096, 4096),
    ]
    assert alexnet.first_filters().shape == (96, 2, 11, 11)
    vgg = model.build("vgg16", (3, 128, 128))
    assert vgg.body.classifier[0].weight.shape == (4096, 512 * 4 * 4)  # the earlier code's 128 px
    assert sum(isinstance(part, nn.Conv2d) for part in vgg.modules()) == 13
    assert sum(isinstance(part, nn.BatchNorm2d) for part in vgg.modules()) == 13


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_features_are_before_the_last_relu_which_the_head_applies(name):
    trunk = model.build(name, (3, 64, 64), n_hidden=32).eval()
    features = trunk(torch.rand(8, 3, 64, 64))
    assert (features < 0).any()
    head = heads.Head(32, 5)
    torch.testing.assert_close(head(features), head(features.relu()))


def test_features_without_hidden_layers_are_average_pooled():
    trunk = model.build("vgg11", (3, 64, 64), n_hidden=0).eval()
    images = torch.rand(2, 3, 64, 64)
    last = nn.functional.max_pool2d(trunk.activations(images)["conv8"], 2)
    torch.testing.assert_close(trunk(images), last.mean((2, 3)))


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "resnet"])
def test_trunk_works_with_other_image_sizes(name):
    trunk = model.build(name, (3, 64, 64), **SMALL).eval()
    for side in (48, 80) if name != "alexnet" else (63, 80):
        assert trunk(torch.rand(1, 3, side, side)).shape == (1, trunk.n_features)


@pytest.mark.parametrize(
    ("side", "stem_stride", "kernel", "map_side"),
    [(32, None, 3, 32), (64, None, 3, 32), (128, None, 7, 32), (32, 2, 3, 16)],
)
def test_resnet_stem_depends_on_the_image_size(side, stem_stride, kernel, map_side):
    options = {"width": 8, "n_blocks": 1, "stem_stride": stem_stride}
    trunk = model.build("resnet", (3, side, side), **options).eval()
    assert trunk.first_filters().shape == (8, 3, kernel, kernel)
    stages = trunk.activations(torch.rand(1, 3, side, side))
    assert stages["layer1"].shape[2:] == (map_side, map_side)
    assert stages["layer4"].shape[2:] == (map_side // 8, map_side // 8)


@pytest.mark.parametrize(("name", "side"), [("alexnet", 62), ("vgg16", 31)])
def test_too_small_images_are_refused_with_the_size_needed(name, side):
    model.build(name, (3, side + 1, side + 1), n_hidden=8)
    with pytest.raises(UserError, match=f"{side} pixels are too small for {name}, which needs"):
        model.build(name, (3, side, side), n_hidden=8)


def test_sobel_filters_the_mean_of_the_channels():
    preprocess = trunk_module.Preprocess(True, (0, 0, 0), (1, 1, 1))
    images = torch.zeros(1, 3, 5, 5)
    images[..., 3:] = 1  # left dark, right bright
    horizontal, vertical = preprocess(images)[0]
    assert horizontal[2].tolist()[:4] == [0, 0, -4, -4]
    assert vertical[1:-1, :4].abs().max() < 1e-6
    horizontal, vertical = preprocess(images.transpose(2, 3))[0]
    assert vertical[:4, 2].tolist() == [0, 0, -4, -4]
    assert horizontal[:4, 1:-1].abs().max() < 1e-6
    assert not list(preprocess.parameters()) and not preprocess.state_dict()


def test_colors_are_normalized_with_imagenet_statistics():
    mean = trunk_module.IMAGENET_MEAN
    preprocess = trunk_module.Preprocess(False, mean, trunk_module.IMAGENET_STD)
    images = torch.tensor(mean).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(preprocess(images), torch.zeros(1, 3, 2, 2))


def test_initial_weights_are_distributed_as_the_authors():
    trunk = model.build("alexnet", (3, 64, 64), n_hidden=500)
    convolution, linear = trunk.body.features[4], trunk.body.classifier[4]
    assert convolution.weight.std().item() == pytest.approx((2 / (25 * 256)) ** 0.5, rel=0.01)
    assert linear.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert (convolution.bias == 0).all() and (linear.bias == 0).all()
    head = heads.Head(500, 200)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.02) and (head.bias == 0).all()


def test_head_reset_depends_on_the_generator_alone():
    pair = [heads.Head(6, 3) for _ in range(2)]
    for head in pair:
        head.reset(torch.Generator().manual_seed(4))
    assert torch.equal(pair[0].weight, pair[1].weight)


def test_embeddings_have_length_1():
    projection = heads.Projection(20, 16, 8)
    torch.testing.assert_close(projection(torch.randn(9, 20)).norm(dim=1), torch.ones(9))


def test_prototypes_are_normalized_centroids_and_not_trained():
    prototypes = heads.Prototypes(4, (3, 5))
    centroids = torch.randn(5, 4)
    prototypes.set(1, centroids)
    embeddings = nn.functional.normalize(torch.randn(7, 4))
    cosines = prototypes(embeddings)
    assert [tuple(per_head.shape) for per_head in cosines] == [(7, 3), (7, 5)]
    expected = nn.functional.cosine_similarity(embeddings[:, None], centroids, dim=2)
    torch.testing.assert_close(cosines[1], expected)
    assert not list(prototypes.parameters()) and len(prototypes.state_dict()) == 2


def test_a_copied_trunk_records_its_own_activations():
    trunk = model.build("resnet", (3, 8, 8), width=4, n_blocks=1).eval()
    other = copy.deepcopy(trunk)
    with torch.no_grad():
        other.body.conv1.weight.zero_()
    images = torch.rand(2, 3, 8, 8)
    assert (other.activations(images)["conv1"] == 0).all()
    assert (trunk.activations(images)["conv1"] > 0).any()


def test_equal_seeds_build_equal_trunks():
    first, second = [
        torch.manual_seed(3) and model.build("resnet", (3, 8, 8), width=4) for _ in range(2)
    ]
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_bfloat16_gradient_of_weights_that_only_see_padding_is_zero(side):
    """With freed memory full of NaN; only fails on hardware with bfloat16."""
    convolution = trunk_module.Conv2d(16, 32, 3, stride=2, padding=1)
    images, gradients = torch.randn(16, 16, side, side), []
    for enabled in (False, True):
        convolution.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = convolution(images)
        filled = [torch.full((n,), torch.nan) for n in (288, 2304, 4608, 16384)]
        del filled
        y.float().square().sum().backward()
        gradients.append(convolution.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0.05, atol=float(gradients[0].abs().max()) / 50)
    assert (gradients[1][:, :, 0] == 0).all() == (side < 3)
