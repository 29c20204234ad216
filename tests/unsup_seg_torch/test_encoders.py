"""Weights from files, the cache and the hub: all of them and of the right network, or a refusal."""

import logging
import pickle
import time

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from common import UserError
from tests.entry_scripts import PickleBomb
from unsup_seg_torch import encoders

SIZES = {"patch_size": 8, "width": 64, "depth": 2}


def build(size=(32, 32), **sizes):
    return encoders.build(None, size, **SIZES | sizes)


def assert_same(one, two):
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_any_size_has_tokens_of_its_padded_grid():
    encoder = build().eval()
    images = torch.rand(2, 3, 20, 41)
    assert encoder.grid(20, 41) == (3, 6)
    assert encoder(images).shape == (2, 1 + 3 * 6, 64)
    padded = encoder.pad(images)
    assert padded.shape == (2, 3, 24, 48)
    assert not padded[:, :, 20:].any() and not padded[..., 41:].any()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in encoders.IMAGENET)
    assert torch.equal(padded[:, :, :20, :41], (images - mean) / std)


@pytest.mark.parametrize("patch_size, convolutions", [(8, 7), (12, 5), (3, 1)])
def test_a_stem_of_small_convolutions_sees_the_same_patches(patch_size, convolutions):
    encoder = build(patch_size=patch_size, stem=True).eval()
    stem = encoder.net.patch_embed.proj
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in stem) == convolutions
    images = torch.rand(2, 3, 4 * patch_size, 5 * patch_size)
    before = encoder(images)
    assert before.shape == (2, 1 + 4 * 5, 64)
    images[:, :, : 4 * patch_size // 2] = 0
    assert stem(images).shape == (2, 64, 4, 5) and not torch.equal(before, encoder(images))


def test_weights_with_a_stem_are_loaded_by_name_and_refused_without_one(tmp_path):
    one, other = build(stem=True), build(stem=True)
    save_file(one.net.state_dict(), tmp_path / "a.safetensors")
    encoders.load(other, tmp_path / "a.safetensors")
    assert_same(one, other)
    with pytest.raises(UserError, match="lacks 2 of the .* patch_embed.proj.bias"):
        encoders.load(build(), tmp_path / "a.safetensors")


def test_an_encoder_of_timm_has_its_own_statistics_and_heads():
    encoder = encoders.build("vit_tiny_patch16_224", (32, 48))
    assert encoder.statistics == ((0.5,) * 3, (0.5,) * 3)
    assert (encoder.patch_size, encoder.width, encoder.n_heads, encoder.n_prefix) == (16, 192, 3, 1)
    assert encoder.net.patch_embed.grid_size == (2, 3)
    assert encoders.build("deit_tiny_distilled_patch16_224", (32, 32)).n_prefix == 2


@pytest.mark.parametrize(
    "name, reason",
    [
        ("vit_tiny_patch16_38", "did you mean vit_tiny_patch16_384"),
        ("test_resnet", "no plain vision transformer of timm"),
    ],
)
def test_what_is_no_transformer_is_refused(name, reason):
    with pytest.raises(UserError, match=reason):
        encoders.build(name, (32, 32))


@pytest.mark.parametrize("prefix", ["", "module.backbone.", "average.encoder.net.", "teacher."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_are_found_whatever_wraps_their_names(tmp_path, caplog, prefix, suffix):
    saved, other = build(), build()
    named = {f"{prefix}{k}": v for k, v in saved.net.state_dict().items()}
    named |= {f"{prefix}head.mlp.0.weight": torch.ones(2)}
    path = tmp_path / f"weights{suffix}"
    save_file(named, path) if suffix == ".safetensors" else torch.save({"state_dict": named}, path)
    with caplog.at_level(logging.INFO):
        encoders.load(other, path)
    assert_same(saved.net, other.net)
    assert f"{len(saved.net.state_dict())} of {len(saved.net.state_dict())} loaded" in caplog.text
    assert "left out: head.mlp.0.weight" in caplog.text


def test_of_a_checkpoint_of_dino_the_teacher_is_loaded(tmp_path):
    """As the authors save it: both networks, wrapped, with heads, in one dictionary."""
    student, teacher, ours = build(), build(), build()
    torch.save(
        {
            name: {f"module.backbone.{k}": v for k, v in net.net.state_dict().items()}
            | {"module.head.last_layer.weight_g": torch.ones(3, 1)}
            for name, net in (("student", student), ("teacher", teacher))
        },
        tmp_path / "checkpoint.pth",
    )
    encoders.load(ours, tmp_path / "checkpoint.pth")
    assert_same(ours.net, teacher.net)


def test_position_embeddings_are_resized_as_timm_does(tmp_path, caplog):
    saved, other = build((32, 32)), build((48, 24))
    save_file(saved.net.state_dict(), tmp_path / "a.safetensors")
    with caplog.at_level(logging.INFO):
        encoders.load(other, tmp_path / "a.safetensors")
    grid = saved.net.pos_embed[:, 1:].detach().unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (6, 3), mode="bicubic", antialias=True)
    expected = grid.permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(other.net.pos_embed[:, 1:].detach(), expected)
    assert torch.equal(other.net.pos_embed[:, :1], saved.net.pos_embed[:, :1])
    assert "position embeddings resized to 6x3" in caplog.text


def test_a_grid_that_is_no_square_is_known_from_the_header(tmp_path):
    saved, same, other = build((16, 40)), build((16, 40)), build((32, 32))
    save_file(saved.net.state_dict(), tmp_path / "a.safetensors", saved.describe())
    encoders.load(same, tmp_path / "a.safetensors")
    assert_same(same.net, saved.net)
    encoders.load(other, tmp_path / "a.safetensors")
    assert other.net.pos_embed.shape == (1, 17, 64)


@pytest.mark.parametrize(
    "sizes, reason",
    [
        ({"depth": 3}, "has 2 blocks, .* has 3"),
        ({"n_heads": 2}, "is of 1 heads, the config's model.n_heads makes 2"),
        ({"width": 128}, "of another transformer: .* is |is of 1 heads"),  # with a header: 1, not 2
    ],
)
@pytest.mark.parametrize("has_header", [False, True])
def test_another_depth_width_or_number_of_heads_is_refused(tmp_path, sizes, reason, has_header):
    saved = build()
    header = saved.describe() if has_header else None
    save_file(saved.net.state_dict(), tmp_path / "a.safetensors", header)
    with pytest.raises(UserError, match=reason):
        encoders.load(build(**sizes), tmp_path / "a.safetensors")


def test_another_normalisation_is_refused(tmp_path):
    theirs = VisionTransformer(
        img_size=32, patch_size=16, embed_dim=192, num_heads=3, num_classes=0
    )
    ours = encoders.build("vit_tiny_patch16_224", (32, 32))  # 0.5 and 0.5
    torch.save({"teacher": theirs.state_dict()}, tmp_path / "dino.pth")
    with pytest.raises(UserError, match="normalises to .0.5, 0.5, 0.5.: take a model.backbone"):
        encoders.load(ours, tmp_path / "dino.pth")
    torch.save(theirs.state_dict(), tmp_path / "bare.pth")
    encoders.load(ours, tmp_path / "bare.pth")
    assert_same(ours.net, theirs)


def test_a_missing_and_a_nan_weight_are_refused_and_nothing_is_changed(tmp_path):
    saved, other = build().net.state_dict(), build()
    before = {k: v.clone() for k, v in other.state_dict().items()}
    saved["norm.weight"][0] = torch.nan
    save_file(saved, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="norm.weight is NaN"):
        encoders.load(other, tmp_path / "a.safetensors")
    del saved["blocks.1.mlp.fc1.bias"]
    save_file(saved, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"lacks 1 of the \d+ weights of .*blocks.1.mlp.fc1.bias"):
        encoders.load(other, tmp_path / "a.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_a_pickle_that_runs_programs_is_refused_and_not_executed(tmp_path):
    bomb, path = tmp_path / "harmed", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(PickleBomb(bomb)))
    with pytest.raises(UserError, match="evil.pth"):
        encoders.load(build(), path)
    torch.save({"teacher": {"pos_embed": PickleBomb(bomb)}}, path)
    with pytest.raises(UserError, match="holds more than tensors, and was not loaded"):
        encoders.load(build(), path)
    assert not bomb.exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04cut"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_and_absent_files_are_refused_by_name(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a{suffix} (is no readable|holds)"):
        encoders.load(build(), path)
    with pytest.raises(UserError, match="absent.pth is absent"):
        encoders.load(build(), tmp_path / "absent.pth")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and a hub that does not answer."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache, repository, weights):
    """As the hub's own client keeps what it has fetched."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    save_file(weights, folder / "snapshots/abc/model.safetensors")


def test_offline_weights_that_are_not_cached_are_refused_soon(cache):
    encoder = encoders.build("test_vit", (32, 32))
    began = time.monotonic()
    with pytest.raises(UserError, match="not in the cache .*hub and cannot be fetched") as error:
        encoders.fetch(encoder)
    assert "\n" not in str(error.value) and "model.weights" in str(error.value)
    assert time.monotonic() - began < 15  # a second, on a busy machine; timm's own try takes 46


def test_cached_weights_need_no_network(cache):
    theirs = timm.create_model("test_vit", img_size=32, dynamic_img_size=True)
    put(cache, timm.get_pretrained_cfg("test_vit").hf_hub_id, theirs.state_dict())
    ours = encoders.build("test_vit", (32, 32))
    encoders.fetch(ours)
    theirs.reset_classifier(0)
    assert_same(ours.net, theirs)


def test_there_is_nothing_to_fetch_for_sizes_of_our_own():
    with pytest.raises(UserError, match="no weights of the transformer of width 64, depth 2"):
        encoders.fetch(build())
