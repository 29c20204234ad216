from dataclasses import dataclass, field
from typing import Literal

import pytest

from common import UserError, config, require
from tests.common.config_classes import Config, Model, Training, Tree, TreeConfig

CLASSES = {"kmeans": Config, "tree": TreeConfig}


@pytest.fixture
def schema():
    return config.Schema(Config)


def test_schema_has_all_keys_with_types_and_help(schema):
    assert (
        list(schema.types)
        == list(schema.help)
        == [
            *("dataset.name", "dataset.path"),
            *("model.name", "model.n_clusters", "model.parts", "model.legacy"),
            *("training.lr", "training.n_epochs", "training.widths"),
        ]
    )
    assert schema.types["dataset.path"] == str | None


def test_help_is_the_docstring_with_the_default_as_yaml(schema):
    assert schema.help["dataset.name"] == "Dataset to train on (default: digits)"
    assert schema.help["dataset.path"] == "Folder of images (default: null)"
    assert schema.help["model.parts"] == (
        'Transformations to learn, in this order (default: ["identity"])'
    )
    assert schema.help["model.legacy"] == "(default: false)"  # no docstring
    assert schema.help["training.lr"] == "Step size, 100 % of it (default: 0.001)"


@dataclass(frozen=True)
class Types:
    a: int | None = None
    b: Literal["x", "y"] | None = None
    c: tuple[float, float] = (0.0, 1.0)
    d: tuple[Literal["x", "y"], ...] = ()
    e: list[int] = field(default_factory=list)
    f: int | str = ""


@dataclass(frozen=True)
class TypesConfig:
    s: Types = field(default_factory=Types)


@pytest.mark.parametrize(
    ("key", "metavar", "description"),
    [
        ("s.a", "INT", "int or null"),
        ("s.b", "{x,y}", "one of x, y or null"),
        ("s.c", "[FLOAT, FLOAT]", "a list [...] of float"),
        ("s.d", "[{x,y}, ...]", "a list [...] of one of x, y"),
        ("s.e", "[INT, ...]", "a list [...] of int"),
        ("s.f", "INT|STR", "int | str"),
    ],
)
def test_types_are_named_in_help_and_errors(key, metavar, description):
    schema = config.Schema(TypesConfig)
    assert schema.metavar(key) == metavar
    assert config.describe_type(schema.types[key]) == description
    assert schema.help["s.f"] == '(default: "")'


def test_parse_converts_text(schema):
    assert schema.parse("training.lr", "1e-4") == 1e-4
    assert schema.parse("model.parts", "[a, 'b c']") == ("a", "b c")
    assert schema.parse("dataset.path", "null") is None
    assert schema.parse("model.legacy", "true") is True


def test_validate_converts_values(schema):
    assert schema.validate("model.parts", ["a", "b"]) == ("a", "b")
    assert schema.validate("training.widths", [1, 2.5]) == [1.0, 2.5]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.lr", "fast", "training.lr: expected float, found fast"),
        ("training.lr", None, "training.lr: expected float, found nothing"),
        ("training.lr", float("nan"), "training.lr: expected a finite number, found nan"),
        ("training.widths", [1, float("inf")], "training.widths: expected a finite number"),
        ("model.name", "gnn", "model.name: expected one of kmeans, gmm, found gnn"),
        ("model.name", "x" * 99, f"found {'x' * 80}$"),
    ],
)
def test_validate_refuses_values_with_the_key(schema, key, value, message):
    with pytest.raises(UserError, match=message):
        schema.validate(key, value)


def test_load_names_the_file_and_the_key(schema, tmp_path):
    path = tmp_path / "a.yml"
    for text, message in (
        ("training: {lr: fast}", f"{path}: training.lr: expected float, found fast"),
        ("training: 5", f"{path}: training must be a section of keys, found 5"),
        ("training: {lrr: 5}", f"{path}: no key training.lrr; did you mean training.lr?"),
        ("[", f"{path}, line 1 is not valid YAML: expected the node content"),
        ("", f"{path}: expected sections such as `training:`, found nothing"),
        ("- a", f"{path}: expected sections such as `training:`, found a list"),
    ):
        path.write_text(text)
        with pytest.raises(UserError) as error:
            schema.load(path)
        assert str(error.value).startswith(message)
    with pytest.raises(UserError, match="cannot read .*: No such file"):
        schema.load(tmp_path / "missing.yml")


def test_make_config_has_defaults_and_validates():
    assert config.make_config(Config, {"training.lr": 1}) == Config(training=Training(lr=1.0))
    for values, message in (
        ({"training.lrr": 1}, "no key training.lrr; did you mean training.lr"),
        ({"training.lr": "fast"}, "training.lr: expected float"),
        ({"training.lr": -1.0}, "training.lr: expected more than 0, found -1.0"),
    ):
        with pytest.raises(UserError, match=message):
            config.make_config(Config, values)


def test_load_config_chooses_the_class_by_model_name(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/tree.yml").write_text("model: {name: tree, depth: 5}")
    (tmp_path / "own.yml").write_text("model: {n_clusters: 3}")
    (tmp_path / "bad.yml").write_text("model: {name: trees}")
    script = str(tmp_path / "train.py")
    assert config.load_config(CLASSES, script, "tree.yml") == TreeConfig(model=Tree(depth=5))
    own = config.load_config(CLASSES, script, str(tmp_path / "own.yml"))
    assert own == Config(model=Model(n_clusters=3))
    with pytest.raises(UserError, match="model.name: expected one of kmeans, tree, found trees"):
        config.load_config(CLASSES, script, str(tmp_path / "bad.yml"))
    with pytest.raises(UserError, match="no config x.yml: expected a path or one of tree.yml"):
        config.load_config(CLASSES, script, "x.yml")


def test_as_plain_has_yaml_types():
    plain = config.as_plain(Config())
    assert plain["model"]["parts"] == ["identity"] and plain["dataset"]["path"] is None


def test_require_names_key_value_and_expectation():
    require(True, "a.b", 1, "anything")
    with pytest.raises(ValueError, match="a.b is 0: expected 1 or more"):
        require(False, "a.b", 0, "1 or more")
