"""The class token's row against the whole matrix, masks against a loop, cuts of simple features."""

import numpy as np
import pytest
import timm
import torch

from unsup_seg_torch import attention, encoders, tokencut


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = encoders.build(None, (32, 32), patch_size=8, width=48, depth=3, n_heads=4).eval()
    for parameter in encoder.parameters():  # else all attention is nearly the same
        parameter.data.normal_(0, 0.2)
    return encoder


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (19, 50)])
def test_the_row_is_that_of_the_whole_matrix(encoder, size):
    pictures = torch.rand(2, 3, *size)
    finished_run = []
    last = encoder.net.blocks[-1].attn
    last.fused_attn = False
    handle = last.attn_drop.register_forward_hook(
        lambda module, given, found: finished_run.append(found)
    )
    with torch.no_grad():
        encoder(pictures)
    handle.remove()
    last.fused_attn = True
    rows, columns = encoder.grid(*size)
    n = rows * columns
    assert finished_run[0].shape == (2, 4, 1 + n, 1 + n)
    found = attention.class_rows(encoder, pictures)
    assert found.shape == (2, 4, rows, columns)
    torch.testing.assert_close(found.flatten(2), finished_run[0][:, :, 0, 1:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "test_vit"])
def test_prefix_tokens_of_any_number_are_left_out(name):
    encoder = encoders.build(name, (64, 64)).eval()
    maps = attention.class_rows(encoder, torch.rand(1, 3, 64, 96))
    assert maps.shape == (1, encoder.n_heads, *encoder.grid(64, 96))
    assert (maps.sum((2, 3)) < 1).all()


def test_keys_are_what_the_attention_uses(encoder):
    pictures, kept = torch.rand(1, 3, 32, 40), []
    handle = encoder.net.blocks[-1].attn.k_norm.register_forward_hook(
        lambda module, given, found: kept.append(found)
    )
    found = attention.keys(encoder, pictures)
    handle.remove()
    assert found.shape == (1, 4, 5, 48)
    expected = kept[0][:, :, 1:].transpose(1, 2).flatten(2).unflatten(1, (4, 5))
    torch.testing.assert_close(found, expected)


def test_the_mask_is_the_fewest_patches_with_the_mass():
    maps = np.random.default_rng(0).random((3, 5, 6)) ** 3
    masks = attention.mass_mask(maps, 0.6)
    for one, mask in zip(maps, masks, strict=True):
        n, total = 0, 0.0
        for value in sorted(one.ravel(), reverse=True):  # a loop that a reader can trust
            if total >= 0.6 * one.sum():
                break
            n, total = n + 1, total + value
        assert mask.sum() == n
        assert one[mask].min() > one[~mask].max()
    assert attention.mass_mask(maps, 1.0).all() and not attention.mass_mask(maps, 0.0).any()


def test_a_patch_is_a_block_of_pixels():
    big = attention.enlarge(np.arange(6).reshape(1, 2, 3), (15, 20), 8)
    assert big.shape == (1, 15, 20)
    assert big[0, 7, 7] == 0 and big[0, 8, 8] == 4 and big[0, 14, 19] == 5


def test_heads_are_drawn_in_their_own_colours():
    maps = np.zeros((2, 4, 4))
    maps[0, :2], maps[1, 2:] = 1, 0.1
    image = np.full((4, 4, 3), 100, np.uint8)
    figure = attention.colours(image, maps > 0, maps)
    assert len(np.unique(figure.reshape(-1, 3), axis=0)) == 2
    assert np.array_equal(attention.colours(image, maps > 5, maps), image // 2)
    assert attention.heat(maps[0]).min() == 0 and attention.heat(maps[0]).max() == 255


# ---- TokenCut


@pytest.fixture
def patches():
    """A square of one kind on ground of another, with noise."""
    random = np.random.default_rng(0)
    patches = np.zeros((8, 10, 6))
    patches[..., 0] = 1
    patches[2:5, 3:7] = [0, 1, 0, 0, 0, 0]
    return patches + 0.05 * random.normal(size=patches.shape)


def test_the_object_is_the_side_of_the_largest_entry(patches):
    mask, vector = tokencut.two_way(patches)
    expected = np.zeros((8, 10), bool)
    expected[2:5, 3:7] = True
    assert np.array_equal(mask, expected)
    assert vector.shape == (8, 10)


def test_the_cut_solves_the_papers_equation(patches):
    """(D - W) x = lambda D x with W of 1 and 1e-5, by numpy."""
    ties = np.where(tokencut.similarities(patches) > 0.2, 1, 1e-5)
    degrees = np.diag(ties.sum(1))
    values, vectors = np.linalg.eig(np.linalg.solve(degrees, degrees - ties))
    expected = np.real(vectors[:, np.argsort(np.real(values))[1]])
    _, found = tokencut.two_way(patches)
    assert abs(np.corrcoef(found.ravel(), expected)[0, 1]) > 0.999


def test_of_two_equal_pieces_only_the_one_with_the_seed_is_kept(patches):
    patches[6:8, 0:2] = patches[2, 3]
    mask, _ = tokencut.two_way(patches)
    assert mask[2:5, 3:7].all() != mask[6:8, 0:2].all()


def test_k_segments_and_no_more_than_there_are_patches(patches):
    patches[:, 8:] = [0, 0, 1, 0, 0, 0]
    two, labels = tokencut.k_ways(patches, 3)
    assert len(np.unique(two)) == 2
    assert [len(np.unique(labels[part])) for part in (np.s_[2:5, 3:7], np.s_[:, 8:])] == [1, 1]
    assert len(np.unique(labels)) == 3
    assert tokencut.k_ways(patches[:1, :2], 6).shape == (5, 1, 2)
    assert not tokencut.k_ways(patches[:1, :1], 6).any()
    assert tokencut.two_way(patches[:1, :1])[0].all()


def test_refined_labels_end_at_the_edge_of_colour():
    image = np.full((32, 40, 3), 220, np.uint8)
    image[:, :18] = (30, 60, 90)  # inside of the third column of patches
    labels = np.zeros((4, 5), int)
    labels[:, :2] = 1
    assert np.array_equal(tokencut.refine(labels, image, 8, 0)[0], [1] * 16 + [0] * 24)
    found = tokencut.refine(labels, image, 8)
    assert found.shape == (32, 40) and np.array_equal(found[16], [1] * 18 + [0] * 22)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet"])
def test_features_of_any_network_of_timm(name):
    net = timm.create_model(name, num_classes=0).eval()
    side = net.default_cfg["input_size"][1]
    found = tokencut.features(net, torch.rand(1, 3, side, side))
    assert found.ndim == 4 and found.shape[1] == found.shape[2] > 1
    assert found.shape[3] == net.num_features


def test_features_of_an_encoder_are_its_keys(encoder):
    pictures = torch.rand(1, 3, 32, 40)
    assert torch.equal(tokencut.features(encoder, pictures), attention.keys(encoder, pictures))
