"""Weights of encoders from files, cache and hub: all of the right network, or refused."""

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
from tests.unsup_seg_torch import hub_cache
from tests.unsup_seg_torch.vit.conftest import build
from unsup_seg_torch.vit import encoder as encoders
from unsup_seg_torch.vit import weights as vit_weights


def assert_equal_weights(net, expected):
    pairs = zip(net.state_dict().values(), expected.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# ---- weights from files


def test_weights_with_a_stem_load_only_with_a_stem(tmp_path):
    saved, other = build(stem=True), build(stem=True)
    save_file(saved.net.state_dict(), tmp_path / "a.safetensors")
    vit_weights.load(other, tmp_path / "a.safetensors")
    assert_equal_weights(other, saved)
    with pytest.raises(UserError, match="lacks 2 of the .* patch_embed.proj.bias"):
        vit_weights.load(build(), tmp_path / "a.safetensors")


@pytest.mark.parametrize("prefix", ["", "module.backbone.", "average.encoder.net.", "teacher."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_load_with_any_prefix(tmp_path, caplog, prefix, suffix):
    saved, other = build(), build()
    weights = {f"{prefix}{k}": v for k, v in saved.net.state_dict().items()}
    weights |= {f"{prefix}head.mlp.0.weight": torch.ones(2)}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights}, path)
    with caplog.at_level(logging.INFO):
        vit_weights.load(other, path)
    assert_equal_weights(other.net, saved.net)
    assert f"all {len(saved.net.state_dict())} loaded" in caplog.text
    assert "ignored: head.mlp.0.weight" in caplog.text


def test_teacher_of_a_dino_checkpoint_is_loaded(tmp_path):
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
    vit_weights.load(ours, tmp_path / "checkpoint.pth")
    assert_equal_weights(ours.net, teacher.net)


def test_position_embeddings_are_resized_as_in_timm(tmp_path, caplog):
    saved, other = build((32, 32)), build((48, 24))
    save_file(saved.net.state_dict(), tmp_path / "a.safetensors")
    with caplog.at_level(logging.INFO):
        vit_weights.load(other, tmp_path / "a.safetensors")
    grid = saved.net.pos_embed[:, 1:].detach().unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, (6, 3), mode="bicubic", antialias=True)
    expected = grid.permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(other.net.pos_embed[:, 1:].detach(), expected)
    assert torch.equal(other.net.pos_embed[:, :1], saved.net.pos_embed[:, :1])
    assert "position embeddings resized to 6x3" in caplog.text


def test_grid_that_is_not_square_is_read_from_the_header(tmp_path):
    saved, same, other = build((16, 40)), build((16, 40)), build((32, 32))
    save_file(saved.net.state_dict(), tmp_path / "a.safetensors", saved.describe())
    vit_weights.load(same, tmp_path / "a.safetensors")
    assert_equal_weights(same.net, saved.net)
    vit_weights.load(other, tmp_path / "a.safetensors")
    assert other.net.pos_embed.shape == (1, 17, 64)


@pytest.mark.parametrize(
    "sizes, reason",
    [
        ({"depth": 3}, "has 2 blocks, .* has 3"),
        ({"n_heads": 2}, "has 1 heads, the config's model.n_heads makes 2"),
        ({"width": 128}, "of another model: .* is |has 1 heads"),  # with a header: 1, not 2
    ],
)
@pytest.mark.parametrize("has_header", [False, True])
def test_another_depth_width_or_number_of_heads_is_refused(tmp_path, sizes, reason, has_header):
    saved = build()
    header = saved.describe() if has_header else None
    save_file(saved.net.state_dict(), tmp_path / "a.safetensors", header)
    with pytest.raises(UserError, match=reason):
        vit_weights.load(build(**sizes), tmp_path / "a.safetensors")


def test_another_patch_size_is_refused(tmp_path):
    """timm would resample the patch embedding, and the features would differ."""
    save_file(build().net.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="has patches of 8 pixels, .* of 4: expected the same"):
        vit_weights.load(build(patch_size=4), tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["blocks.0.ls1.gamma", "reg_token", "neck.weight"])
def test_unexpected_weights_are_refused_by_name(tmp_path, name):
    saved = build().net.state_dict() | {name: torch.ones(64)}
    save_file(saved, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=f"it has 1 weights that the .* lacks, such as {name}"):
        vit_weights.load(build(), tmp_path / "a.safetensors")


def test_file_of_two_networks_is_refused(tmp_path):
    tensors = build().net.state_dict()
    both = {f"{key}.{name}": v.clone() for key in ("model", "net") for name, v in tensors.items()}
    save_file(both, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="holds two networks: .* is there twice"):
        vit_weights.load(build(), tmp_path / "a.safetensors")


def test_custom_encoder_takes_normalization_and_epsilon_from_the_header(tmp_path):
    saved, other = build(), build()
    saved.adopt({"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "norm_eps": 0.25})
    save_file(saved.net.state_dict(), tmp_path / "a.safetensors", saved.describe())
    vit_weights.load(other, tmp_path / "a.safetensors")
    assert other.describe() == saved.describe()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(other.eval()(images), saved.eval()(images))
    pixels = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.3, 0.4]
    ).view(3, 1, 1)
    torch.testing.assert_close(other.pad(images), pixels)
    assert {m.eps for m in other.modules() if isinstance(m, torch.nn.LayerNorm)} == {0.25}
    vit_weights.adopt_header(torch.nn.ModuleList([resumed := build()]), tmp_path / "a.safetensors")
    assert resumed.describe() == saved.describe()


def test_another_normalization_is_refused(tmp_path):
    dino = VisionTransformer(img_size=32, patch_size=16, embed_dim=192, num_heads=3, num_classes=0)
    ours = encoders.build("vit_tiny_patch16_224", (32, 32))  # mean 0.5, deviation 0.5
    torch.save({"teacher": dino.state_dict()}, tmp_path / "dino.pth")
    reason = r"expects \(0.5, 0.5, 0.5\): choose a model.backbone with the same normalization"
    with pytest.raises(UserError, match=reason):
        vit_weights.load(ours, tmp_path / "dino.pth")
    torch.save(dino.state_dict(), tmp_path / "bare.pth")
    vit_weights.load(ours, tmp_path / "bare.pth")
    assert_equal_weights(ours.net, dino)


def test_missing_and_nan_weights_are_refused_and_nothing_changes(tmp_path):
    saved, other = build().net.state_dict(), build()
    before = {k: v.clone() for k, v in other.state_dict().items()}
    saved["norm.weight"][0] = torch.nan
    save_file(saved, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="norm.weight is NaN"):
        vit_weights.load(other, tmp_path / "a.safetensors")
    del saved["blocks.1.mlp.fc1.bias"]
    save_file(saved, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"lacks 1 of the \d+ weights of .*blocks.1.mlp.fc1.bias"):
        vit_weights.load(other, tmp_path / "a.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_pickle_with_code_is_refused_and_not_executed(tmp_path):
    bomb, path = tmp_path / "harmed", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(PickleBomb(bomb)))
    with pytest.raises(UserError, match="evil.pth"):
        vit_weights.load(build(), path)
    torch.save({"teacher": {"pos_embed": PickleBomb(bomb)}}, path)
    with pytest.raises(UserError, match="holds more than tensors and was not loaded"):
        vit_weights.load(build(), path)
    assert not bomb.exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04cut"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_and_missing_files_are_refused_by_name(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a{suffix} (is not a readable|holds)"):
        vit_weights.load(build(), path)
    with pytest.raises(UserError, match="absent.pth does not exist"):
        vit_weights.load(build(), tmp_path / "absent.pth")


# ---- weights from the cache or the hub


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and a hub that cannot be reached."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # no server listens there
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_uncached_weights_without_a_network_are_refused_soon(cache):
    encoder = encoders.build("test_vit", (32, 32))
    start = time.monotonic()
    reason = "not in the cache .*hub and cannot be downloaded"
    with pytest.raises(UserError, match=reason) as error:
        vit_weights.load_pretrained(encoder)
    assert "\n" not in str(error.value) and "model.weights" in str(error.value)
    assert time.monotonic() - start < 15  # a second, on a busy machine; timm's own try takes 46


def test_cached_weights_need_no_network(cache):
    timm_net = timm.create_model("test_vit", img_size=32, dynamic_img_size=True)
    hub_cache.write(cache, timm.get_pretrained_cfg("test_vit").hf_hub_id, timm_net)
    ours = encoders.build("test_vit", (32, 32))
    vit_weights.load_pretrained(ours)
    timm_net.reset_classifier(0)
    assert_equal_weights(ours.net, timm_net)


def test_pretrained_weights_of_custom_sizes_are_refused():
    reason = "no pretrained weights exist for the transformer of width 64, depth 2"
    with pytest.raises(UserError, match=reason):
        vit_weights.load_pretrained(build())
