import pickle

import pytest
import torch
from safetensors.torch import save_file

from common import UserError
from common.pytorch import weights
from tests.entry_scripts import PickleBomb

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(1)}


def assert_equal(tensors, expected):
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_safetensors_with_metadata(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors", {"encoder": '{"depth": 3}', "x": "y"})
    content, metadata = weights.read(tmp_path / "a.safetensors")
    assert_equal(content, TENSORS)
    assert metadata == {"encoder": '{"depth": 3}', "x": "y"}
    save_file(TENSORS, tmp_path / "b.safetensors")
    assert weights.read(tmp_path / "b.safetensors")[1] == {}


def test_pth_with_nested_dictionaries(tmp_path):
    torch.save({"epoch": 3, "model": {"teacher": TENSORS}}, tmp_path / "a.pth")
    content, metadata = weights.read(tmp_path / "a.pth")
    assert content["epoch"] == 3 and metadata == {}
    path = tmp_path / "a.pth"
    assert_equal(weights.state_dict(content, path, ("state_dict", "model", "teacher")), TENSORS)


def test_state_dict_keeps_only_tensors(tmp_path):
    content = TENSORS | {"epoch": 3, "name": "x"}
    assert_equal(weights.state_dict(content, tmp_path, ()), TENSORS)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, {"model": {"a": 1}}, torch.ones(1)])
def test_state_dict_without_tensors_is_refused(tmp_path, content):
    with pytest.raises(UserError, match="a.pth holds no weights by name"):
        weights.state_dict(content, tmp_path / "a.pth", ("model",))


def test_pickle_is_refused_without_executing_it(tmp_path):
    bomb = PickleBomb(tmp_path / "harm")
    torch.save({"state_dict": {"a": bomb}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="a.pth holds more than tensors and was not loaded"):
        weights.read(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(bomb))
    with pytest.raises(UserError, match="b.pth"):
        weights.read(tmp_path / "b.pth")
    assert not bomb.path.exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04cut"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_and_missing_files_are_refused_by_name(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a{suffix} (is not a readable weights file|holds more)"):
        weights.read(path)
    path.unlink()
    with pytest.raises(UserError, match=f"a{suffix} does not exist: expected a .safetensors or"):
        weights.read(path)


@pytest.mark.parametrize(
    ("text", "expected"), [('{"depth": 3}', {"depth": 3}), ("[1]", {}), ("{", {}), (None, {})]
)
def test_metadata_json_is_a_dictionary_or_empty(text, expected):
    assert weights.metadata_json({} if text is None else {"encoder": text}, "encoder") == expected
