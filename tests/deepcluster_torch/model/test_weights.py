import logging
import pickle
import time

import huggingface_hub.constants
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from common import UserError
from deepcluster_torch import model
from deepcluster_torch.model import weights
from tests.entry_scripts import PickleBomb

SHAPE = (3, 32, 32)


def trunk_of(name="resnet", side=32, **options):
    return model.build(name, (3, side, side), **{"width": 4, "n_blocks": 1} | options)


def assert_same(trunk, other):
    for a, b in zip(trunk.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("prefix", ["", "trunk.", "module.", "module.backbone.", "trunk.body."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_load_with_any_prefix_and_file_type(tmp_path, prefix, suffix):
    saved, other = trunk_of(), trunk_of()
    named = {f"{prefix}{k.removeprefix('body.')}": v for k, v in saved.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    save_file(named, path) if suffix == ".safetensors" else torch.save({"state_dict": named}, path)
    weights.load(other, path)
    assert_same(saved, other)


def test_the_authors_checkpoints_load(tmp_path):
    """They wrap only the convolutions, and contain the Sobel filters and the top layer."""
    saved, other = (trunk_of("alexnet", 64, sobel=True, n_hidden=16) for _ in range(2))
    named = {
        k.removeprefix("body.").replace("features.", "features.module."): v
        for k, v in saved.state_dict().items()
    }
    named |= {"sobel.0.weight": torch.ones(1, 3, 1, 1), "sobel.0.bias": torch.zeros(1)}
    named |= {"sobel.1.weight": torch.ones(2, 1, 3, 3), "sobel.1.bias": torch.zeros(2)}
    named |= {"top_layer.weight": torch.ones(9, 16), "top_layer.bias": torch.ones(9)}
    path = tmp_path / "checkpoint.pth.tar"
    optimizer = torch.optim.SGD(saved.parameters(), 0.05, 0.9).state_dict()
    torch.save({"epoch": 3, "arch": "alexnet", "state_dict": named, "optimizer": optimizer}, path)
    weights.load(other, path)
    assert_same(saved, other)


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18", "resnet50"])
def test_torchvision_weights_load(name, tmp_path):
    torch.manual_seed(0)
    reference = getattr(torchvision.models, name)(weights=None).eval()
    trunk = model.build(name.removesuffix("_bn"), (3, 224, 224), n_hidden=0).eval()
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    weights.load(trunk, tmp_path / "weights.safetensors")
    images = torch.rand(1, 3, 64, 64)
    reference.fc = reference.classifier = torch.nn.Identity()
    inputs = trunk.preprocess(images)
    expected = reference.features(inputs).mean((2, 3)) if "vgg" in name else reference(inputs)
    with torch.no_grad():
        torch.testing.assert_close(trunk(images), expected, rtol=1e-3, atol=1e-4)


def test_ignored_weights_are_logged(tmp_path, caplog):
    saved = trunk_of()
    save_file(saved.state_dict() | {"fc.weight": torch.ones(2)}, tmp_path / "a.safetensors")
    with caplog.at_level(logging.INFO):
        weights.load(trunk_of(), tmp_path / "a.safetensors")
    assert "ignored weights that are not of the trunk: fc.weight" in caplog.text


def test_missing_weight_is_refused_and_nothing_changes(tmp_path):
    saved, other = trunk_of().state_dict(), trunk_of()
    del saved["body.layer3.0.conv2.weight"]
    save_file(saved, tmp_path / "a.safetensors")
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(
        UserError, match=r"lacks 1 of the \d+ weights of resnet .*, such as layer3.0.conv2"
    ):
        weights.load(other, tmp_path / "a.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


@pytest.mark.parametrize("options", [{"width": 8}, {"sobel": True}, {"stem_stride": 4}])
def test_weights_of_another_shape_are_refused_with_the_difference(tmp_path, options):
    save_file(trunk_of().state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"of another model: .* is \(.*resnet .*expects \("):
        weights.load(trunk_of(**options), tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["layer5.0.conv1.weight", "conv1.bias", "neck.weight"])
def test_unexpected_weights_are_refused_by_name(tmp_path, name):
    save_file(trunk_of().state_dict() | {name: torch.ones(4)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=f"it has 1 weights that resnet .*lacks, such as {name}"):
        weights.load(trunk_of(), tmp_path / "a.safetensors")


def test_whole_run_of_ours_and_of_moco_lend_their_trunk(tmp_path):
    saved, other = trunk_of(), trunk_of()
    body = {k.removeprefix("body."): v for k, v in saved.state_dict().items()}
    ours = {f"trunk.body.{k}": v for k, v in body.items()}
    ours |= {"projection.layers.1.weight": torch.ones(2), "prototypes.head0": torch.ones(2)}
    moco = {f"module.encoder_q.{k}": v for k, v in body.items()}
    moco |= {f"module.encoder_k.{k}": torch.zeros_like(v) for k, v in body.items()}
    for tensors in (ours, moco | {"module.queue": torch.ones(2, 3)}):
        save_file(tensors, tmp_path / "a.safetensors")
        weights.load(other, tmp_path / "a.safetensors")
        assert_same(saved, other)
        other = trunk_of()


def test_nan_weights_are_refused(tmp_path):
    saved = trunk_of().state_dict()
    saved["body.conv1.weight"][0, 0, 0, 0] = torch.nan
    save_file(saved, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="conv1.weight is NaN"):
        weights.load(trunk_of(), tmp_path / "a.safetensors")


def test_pickle_with_code_is_refused_and_not_executed(tmp_path):
    bomb = tmp_path / "harm"
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(PickleBomb(bomb)))
    with pytest.raises(UserError, match="evil.pth"):
        weights.load(trunk_of(), path)
    torch.save({"state_dict": {"conv1.weight": PickleBomb(bomb)}}, path)
    with pytest.raises(UserError, match="holds more than tensors and was not loaded"):
        weights.load(trunk_of(), path)
    assert not bomb.exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04cut"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_and_missing_files_are_refused_by_name(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a{suffix} (is not a readable|holds)"):
        weights.load(trunk_of(), path)
    with pytest.raises(UserError, match="missing.pth does not exist"):
        weights.load(trunk_of(), tmp_path / "missing.pth")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}])
def test_file_without_named_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds no weights by name"):
        weights.load(trunk_of(), tmp_path / "a.pth")


def test_pretrained_without_weights_in_timm_is_refused():
    with pytest.raises(UserError, match="timm has no weights of alexnet"):
        model.build("alexnet", (3, 64, 64), n_hidden=8, pretrained=True)


def test_unknown_name_without_timm_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UserError, match="convnext_tiny: expected one of alexnet.*pip install timm"):
        model.build("convnext_tiny", SHAPE)


# ---- timm


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_timm_model_is_a_trunk_for_any_image_size(name):
    trunk = model.build(name, (1, 64, 64)).eval()
    images = torch.rand(2, 1, 64, 64)
    assert trunk(images).shape == (2, trunk.n_features)
    stages = trunk.activations(images)
    assert stages and all(values.ndim == 4 for values in stages.values())
    assert trunk.first_filters().ndim == 4


def test_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean resnet18"):
        model.build("resnet18x", SHAPE)


@pytest.mark.parametrize("name", ["resnet18", "test_resnet.r160_in1k"])
def test_offline_pretrained_weights_are_refused_within_a_second(name, monkeypatch, tmp_path):
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # no server
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model.build("test_resnet", SHAPE)  # imports timm, which takes seconds
    began = time.monotonic()
    with pytest.raises(UserError, match="not in the cache and cannot be downloaded"):
        model.build(name, (3, 224, 224), pretrained=True)
    assert time.monotonic() - began < 15  # seconds; the hub client would retry for minutes
