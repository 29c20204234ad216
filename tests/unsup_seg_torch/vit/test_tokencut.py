"""Normalized cuts of simple patch features."""

import numpy as np
import pytest
import timm
import torch

from unsup_seg_torch.vit import attention, tokencut


@pytest.fixture
def patches():
    """A rectangle of one feature on a background of another, with noise."""
    random = np.random.default_rng(0)
    patches = np.zeros((8, 10, 6))
    patches[..., 0] = 1
    patches[2:5, 3:7] = [0, 1, 0, 0, 0, 0]
    return patches + 0.05 * random.normal(size=patches.shape)


def test_object_is_the_side_of_the_largest_entry(patches):
    mask, vector = tokencut.two_way(patches)
    expected = np.zeros((8, 10), bool)
    expected[2:5, 3:7] = True
    assert np.array_equal(mask, expected)
    assert vector.shape == (8, 10)


def test_eigenvector_solves_the_papers_equation(patches):
    """(D - W) x = lambda D x with W of 1 and 1e-5, by numpy."""
    affinities = np.where(tokencut.similarities(patches) > 0.2, 1, 1e-5)
    degrees = np.diag(affinities.sum(1))
    values, vectors = np.linalg.eig(np.linalg.solve(degrees, degrees - affinities))
    expected = np.real(vectors[:, np.argsort(np.real(values))[1]])
    _, vector = tokencut.two_way(patches)
    assert abs(np.corrcoef(vector.ravel(), expected)[0, 1]) > 0.999


def test_object_is_one_of_two_equal_components(patches):
    patches[6:8, 0:2] = patches[2, 3]
    mask, _ = tokencut.two_way(patches)
    assert mask[2:5, 3:7].all() != mask[6:8, 0:2].all()


def test_k_ways_gives_k_segments_and_at_most_one_per_patch(patches):
    patches[:, 8:] = [0, 0, 1, 0, 0, 0]
    two, three = tokencut.k_ways(patches, 3)
    assert len(np.unique(two)) == 2
    assert [len(np.unique(three[part])) for part in (np.s_[2:5, 3:7], np.s_[:, 8:])] == [1, 1]
    assert len(np.unique(three)) == 3
    assert tokencut.k_ways(patches[:1, :2], 6).shape == (5, 1, 2)
    assert not tokencut.k_ways(patches[:1, :1], 6).any()
    assert tokencut.two_way(patches[:1, :1])[0].all()


def test_refined_labels_follow_the_color_edge():
    image = np.full((32, 40, 3), 220, np.uint8)
    image[:, :18] = (30, 60, 90)  # the edge is inside the third column of patches
    labels = np.zeros((4, 5), int)
    labels[:, :2] = 1
    assert np.array_equal(tokencut.refine(labels, image, 8, 0)[0], [1] * 16 + [0] * 24)
    refined = tokencut.refine(labels, image, 8)
    assert refined.shape == (32, 40) and np.array_equal(refined[16], [1] * 18 + [0] * 22)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet"])
def test_features_of_a_timm_network_have_its_width(name):
    net = timm.create_model(name, num_classes=0).eval()
    side = net.default_cfg["input_size"][1]
    features = tokencut.features(net, torch.rand(1, 3, side, side))
    assert features.ndim == 4 and features.shape[1] == features.shape[2] > 1
    assert features.shape[3] == net.num_features


def test_features_of_an_encoder_are_its_keys(encoder):
    images = torch.rand(1, 3, 32, 40)
    assert torch.equal(tokencut.features(encoder, images), attention.keys(encoder, images))
