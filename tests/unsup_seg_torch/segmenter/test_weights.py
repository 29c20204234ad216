"""Whole checkpoints of Segmenter's authors: the same outputs, or refused with the difference."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from common import UserError
from tests.unsup_seg_torch.segmenter import authors
from unsup_seg_torch import PixelClassifier
from unsup_seg_torch.segmenter import config, model, sliding_window, train


def make_config(path, crop=(32, 32), **options):
    return config.Config(
        dataset=config.Dataset(crop=crop),
        model=config.Model(weights=str(path), **authors.SIZES | options),
        training=config.Training(n_epochs=0, precision="float32"),
    )


def load(path, n_classes=5, crop=(32, 32), **options):
    cfg = make_config(path, crop, **options)
    net = model.build(cfg.model, n_classes, crop)
    model.load_start_weights(cfg.model, net)
    return net.eval()


@pytest.mark.parametrize("decoder", ["mask", "linear"])
@pytest.mark.parametrize("normalization", ["vit", "deit"])
def test_outputs_of_a_whole_checkpoint_are_the_authors(tmp_path, decoder, normalization):
    path, tensors = authors.write(tmp_path, decoder, normalization=normalization)
    net, image = load(path, decoder=decoder), torch.rand(3, 32, 32)
    expected = torch.from_numpy(authors.coarse(tensors, image, normalization))
    with torch.no_grad():
        coarse, logits = net.coarse(image[None])[0].double(), net(image[None])[0].double()
    torch.testing.assert_close(coarse, expected, atol=2e-5, rtol=2e-4)
    full = F.interpolate(expected[None], (32, 32), mode="bilinear")[0]
    torch.testing.assert_close(logits, full, atol=2e-5, rtol=2e-4)


def test_epsilon_of_timm_would_be_seen_by_the_test_of_outputs(tmp_path):
    path, tensors = authors.write(tmp_path)
    net, image = load(path), torch.rand(3, 32, 32)
    net.encoder.adopt({"norm_eps": 1e-2})
    expected = torch.from_numpy(authors.coarse(tensors, image))
    with torch.no_grad():
        assert (net.coarse(image[None])[0] - expected).abs().max() > 1e-3


def test_all_layer_norms_have_the_authors_epsilon(tmp_path):
    path, _ = authors.write(tmp_path)
    norms = [each for each in load(path).modules() if isinstance(each, torch.nn.LayerNorm)]
    # two blocks and a final norm in the encoder; two blocks, decoder_norm and mask_norm
    assert len(norms) == 2 * 2 + 1 + 2 * 2 + 2 and {norm.eps for norm in norms} == {1e-5}


def test_decoder_has_no_drop_path():
    net = model.build(config.Model(**authors.SIZES, drop_path=0.5), 5, (32, 32))
    rates = [each.drop_prob for each in net.encoder.modules() if hasattr(each, "drop_prob")]
    assert max(rates) == 0.5
    assert not any(hasattr(each, "drop_prob") for each in net.decoder.modules())
    net.decoder.train()
    for each in net.decoder.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0
        if hasattr(each, "attn_drop"):
            each.attn_drop = torch.nn.Dropout(0.0)
    tokens = torch.rand(1, 16, authors.WIDTH)
    assert torch.equal(net.decoder(tokens), net.decoder(tokens))


def test_position_embeddings_of_another_crop_are_resized_as_theirs(tmp_path, caplog):
    """Bilinearly and without antialiasing, where timm resizes bicubically."""
    path, tensors = authors.write(tmp_path)
    with caplog.at_level(logging.INFO):
        net = load(path, crop=(24, 48))
    grid = tensors["encoder.pos_embed"][:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (3, 6), mode="bilinear").permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(net.encoder.net.pos_embed[:, 1:].detach(), grid)
    assert torch.equal(net.encoder.net.pos_embed[:, :1], tensors["encoder.pos_embed"][:, :1])
    assert "position embeddings resized to 3x6" in caplog.text


@pytest.mark.parametrize(
    ("n_classes", "options", "reason"),
    [
        (7, {}, r"classes is \(1, 5, 128\), the mask decoder of 7 classes .*\(1, 7, 128\)"),
        (5, {"decoder": "linear"}, "lacks 2 of the 2 weights of the linear decoder .*head.bias"),
        (5, {"decoder_depth": 1}, "12 weights that the mask decoder .*lacks, such as blocks.1"),
        (5, {"decoder_depth": 3}, "lacks 12 of the .* such as blocks.2"),
        (5, {"cells": 2}, r"of_patch.weight is \(128, 128\), .* expects \(512, 128\)"),
        (5, {"depth": 3}, "has 2 blocks, .* has 3"),
        (5, {"n_heads": 4}, "has 2 heads, the config's model.n_heads makes 4"),
        (5, {"patch_size": 4}, "has patches of 8 pixels, .* of 4"),
        (5, {"width": 192}, r"is \(128,\), the transformer of width 192.* expects \(192,\)"),
        (5, {"backbone": "deit_tiny_patch16_224"}, "has 2 blocks, deit_tiny.* has 12"),
    ],
)
def test_another_decoder_or_encoder_is_refused_and_nothing_changes(
    tmp_path, n_classes, options, reason
):
    path, _ = authors.write(tmp_path)
    cfg = make_config(path, **options)
    net = model.build(cfg.model, n_classes, (32, 32))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=reason):
        model.load_start_weights(cfg.model, net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["decoder.mask_norm.bias", "encoder.norm.weight"])
@pytest.mark.parametrize("is_missing", [True, False])
def test_missing_and_unexpected_names_are_refused(tmp_path, name, is_missing):
    path, tensors = authors.write(tmp_path)
    tensors = {key: value for key, value in tensors.items() if key != name}
    if not is_missing:
        tensors |= {name: torch.ones(authors.WIDTH if "encoder" in name else 5)}
        tensors |= {f"{name}2": torch.ones(1)}
    torch.save({"model": tensors}, path)
    reason = "lacks 1 of the" if is_missing else "it has 1 weights that"
    with pytest.raises(UserError, match=reason):
        load(path)


def test_encoder_alone_is_loaded_for_other_classes(tmp_path):
    path, tensors = authors.write(tmp_path)
    net, other = load(path, n_classes=9, load_decoder=False), load(path)
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(net.encoder(image), other.encoder(image))
    assert not net.decoder.classes.isclose(tensors["decoder.cls_emb"][:, :1]).any()


def test_distilled_backbone_loads_with_both_classifiers(tmp_path):
    name, sizes = "deit_tiny_distilled_patch16_224", {"crop": (32, 32), "decoder": "linear"}
    saved = model.build(config.Model(backbone=name, decoder="linear"), 5, (32, 32)).eval()
    tensors = {f"encoder.{k}": v for k, v in saved.encoder.net.state_dict().items()}
    for head in ("head", "head_dist"):
        tensors |= {f"encoder.{head}.weight": torch.ones(9, 192)}
        tensors |= {f"encoder.{head}.bias": torch.ones(9)}
    tensors |= {f"decoder.{k}": v for k, v in saved.decoder.state_dict().items()}
    torch.save({"model": tensors}, tmp_path / "checkpoint.pth")
    net = load(tmp_path / "checkpoint.pth", backbone=name, **sizes)
    saved.encoder.adopt({"norm_eps": 1e-5})
    images = torch.rand(1, 3, 32, 32)
    assert net.encoder.n_prefix == 2 and torch.equal(net(images), saved(images))


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "[]",
        "[" * 5000,
        "net_kwargs: {}",
        "x: !!python/name:os.system",
        "x: !!python/object/apply:os.mkdir [harm]",
        "dataset_kwargs: {normalization: vit}\n"
        "net_kwargs: {patch_size: 0, image_size: [32, 32], n_heads: 2}",
    ],
)
def test_damaged_variant_is_refused_and_nothing_executed(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path, _ = authors.write(tmp_path)
    (tmp_path / "variant.yml").write_text(text)
    with pytest.raises(UserError, match="variant.yml is not a variant.yml of Segmenter's authors"):
        load(path)
    assert not (tmp_path / "harm").exists()


def test_checkpoint_without_variant_has_the_configs_normalization(tmp_path, caplog):
    path, tensors = authors.write(tmp_path, normalization="deit")
    (tmp_path / "variant.yml").unlink()
    with caplog.at_level(logging.INFO):
        net, image = load(path), torch.rand(3, 32, 32)
    assert "variant.yml: assuming the usual heads, the config's normalization" in caplog.text
    with torch.no_grad():
        coarse = net.coarse(image[None])[0].double()
    expected = torch.from_numpy(authors.coarse(tensors, image, "deit"))
    torch.testing.assert_close(coarse, expected, atol=2e-5, rtol=2e-4)


def test_our_own_run_loads_whole_with_its_average(tmp_path):
    cfg = make_config("unused", crop=(16, 24))
    saved = model.build(cfg.model, 4, (16, 24)).eval()
    saved.encoder.adopt({"norm_eps": 1e-4, "mean": [0.1] * 3, "std": [0.3] * 3})
    tensors = {f"average.{name}": value for name, value in saved.state_dict().items()}
    tensors |= {f"net.{name}": torch.zeros_like(v) for name, v in saved.state_dict().items()}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, saved.encoder.describe())
    cfg = make_config(path, crop=(16, 24))
    cfg = dataclasses.replace(cfg, training=dataclasses.replace(cfg.training, average=0.9))
    state = train.initial_state(cfg, 4, torch.device("cpu"))
    train.load_start_weights(cfg, state)
    images = torch.rand(1, 3, 16, 24)
    for net in (state.net, state.kept):
        assert torch.equal(net.eval()(images), saved(images))


def test_untrained_estimator_predicts_with_the_authors_weights(tmp_path):
    path, _ = authors.write(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (40, 33, 3)).astype(np.uint8)
    labels = np.full((40, 33), 4, np.uint8)
    fitted = PixelClassifier(weights=str(path), crop=(32, 32), n_epochs=0, **authors.SIZES).fit(
        image, labels
    )
    expected = sliding_window.probabilities(load(path), image, make_config(path))
    np.testing.assert_allclose(fitted.predict_proba(image), expected, atol=0.02)  # bfloat16
    with pytest.raises(ValueError, match="the mask decoder of 3 classes"):
        PixelClassifier(weights=str(path), crop=(32, 32), n_epochs=0, **authors.SIZES).fit(
            image, labels // 2
        )
