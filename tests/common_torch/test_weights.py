import argparse
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common import UserError
from common.pytorch import weights
from tests.entry_scripts import PickleBomb

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(1)}


def zip_of(data):
    return zipfile.ZipFile(io.BytesIO(data))


def zip_to(buffer):
    return zipfile.ZipFile(buffer, "w")


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


def test_command_line_and_numpy_scalars_of_the_authors_checkpoints_are_read(tmp_path):
    args = argparse.Namespace(arch="vit_small", global_crops_scale=(0.4, 1.0), lr=5e-4)
    groups = [{"lr": np.float64(0.25), "weight_decay": np.float32(0.5), "params": [0]}]
    torch.save({"args": args, "optimizer": groups, "a": TENSORS["a"]}, tmp_path / "a.pth")
    content, _ = weights.read(tmp_path / "a.pth")
    assert vars(content["args"]) == vars(args)
    assert content["optimizer"] == groups
    # as NumPy 1 named the function
    data = (tmp_path / "a.pth").read_bytes()
    assert b"cnumpy._core.multiarray\nscalar" in data
    buffer = io.BytesIO()
    with zip_of(data) as archive, zip_to(buffer) as copy:
        for name in archive.namelist():
            member = archive.read(name).replace(b"numpy._core.multi", b"numpy.core.multi")
            copy.writestr(name, member)
    (tmp_path / "old.pth").write_bytes(buffer.getvalue())
    assert weights.read(tmp_path / "old.pth")[0]["optimizer"] == groups


@pytest.mark.parametrize("dtype", [np.dtype("O"), np.dtype("V8"), np.dtype("U2"), np.dtype("c16")])
def test_numpy_scalars_that_are_not_plain_numbers_are_refused(tmp_path, dtype):
    class Scalar:
        def __reduce__(self):
            return np.float64(0).__reduce__()[0], (dtype, bytes(16))

    torch.save({"a": Scalar()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="a.pth is not a readable weights file"):
        weights.read(tmp_path / "a.pth")


# All but the last two would leave a file or folder named harm in the working directory.
WRITE = "open('harm', 'w').close()"
CALLS = [
    (os.system, "touch harm"),
    (os.mkdir, "harm"),
    (eval, WRITE),
    (exec, WRITE),
    (open, "harm", "w"),
    (pickle.loads, b"cos\nmkdir\n(S'harm'\ntR."),
    (getattr, argparse.Namespace(), "__init__"),
    (print, "harm"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call[0].__name__)
def test_no_function_is_called_by_a_file_beside_a_namespace(tmp_path, monkeypatch, call):
    """Not directly, and not by the state of an allowed class."""
    monkeypatch.chdir(tmp_path)

    class Call:
        def __reduce__(self):
            return call[0], call[1:]

    class Nested:
        def __reduce__(self):
            return argparse.Namespace, (), {"args": Call()}

    for payload in (Call(), Nested(), argparse.Namespace(x=Call())):
        torch.save({"args": argparse.Namespace(y=1), "bad": payload}, tmp_path / "a.pth")
        with pytest.raises(UserError, match="a.pth holds more than tensors and was not loaded"):
            weights.read(tmp_path / "a.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        ({"a": TENSORS["a"]}, "lacks 1 of the 2 weights of the net, such as b.c; it has a, ..."),
        (TENSORS | {"d": torch.ones(1)}, "it has 1 weights that the net lacks, such as d"),
        (TENSORS | {"a": torch.ones(3)}, r"a is \(3,\), the net expects \(2, 3\)"),
        (TENSORS | {"b.c": torch.full((1,), torch.inf)}, "b.c is NaN or infinite"),
    ],
)
def test_difference_of_names_and_shapes_is_refused(saved, reason):
    with pytest.raises(UserError, match=f"x.pth.*{reason}"):
        weights.check(saved, TENSORS, "x.pth", "the net", r"head\.")


def test_names_of_known_other_parts_and_missing_counters_are_ignored():
    expected = TENSORS | {"bn.num_batches_tracked": torch.tensor(1)}
    saved = TENSORS | {"head.weight": torch.ones(1)}
    assert weights.check(saved, expected, "x.pth", "the net", r"head\.") == ["head.weight"]
    with pytest.raises(UserError, match="such as header.weight"):
        weights.check(TENSORS | {"header.weight": torch.ones(1)}, expected, "x", "x", r"head\.")


def test_prefixes_are_stripped_and_two_networks_refused(tmp_path):
    saved = {f"module.net.{name}": value for name, value in TENSORS.items()}
    assert_equal(weights.strip_prefixes(saved, r"(module|net)\.", tmp_path), TENSORS)
    with pytest.raises(UserError, match="holds two networks: a is there twice"):
        weights.strip_prefixes(saved | {"net.a": torch.ones(1)}, r"(module|net)\.", tmp_path)


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
