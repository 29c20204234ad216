"""A frozen dataclass as the schema of YAML files and of command-line options."""

import argparse
import dataclasses
import difflib
import functools
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import jsonargparse
import yaml
from docstring_parser import parse_from_object

from common import UserError

# A frozen dataclass of sections, which are frozen dataclasses; or a dictionary from each model.name
# of a paper to such a class, the default model first.
Classes = type | dict[str, type]


class Schema:
    """The keys "section.name" of a config class: their types, help and validation.

    The help of a field is the docstring below it.
    """

    def __init__(self, config_class: type):
        self.config_class = config_class
        self.sections: dict[str, type] = get_type_hints(config_class)
        self.types: dict[str, Any] = {}
        self.help: dict[str, str] = {}
        for section, cls in self.sections.items():
            docs = {doc.arg_name: doc.description for doc in parse_from_object(cls).params}
            defaults = cls()
            for name, hint in get_type_hints(cls).items():
                key = f"{section}.{name}"
                self.types[key] = hint
                text = " ".join((docs.get(name) or "").split()).removesuffix(".")
                self.help[key] = f"{text} (default: {_as_yaml(getattr(defaults, name))})".lstrip()

    def metavar(self, key: str) -> str:
        """The placeholder of a value in the help: its choices or its type."""
        return _metavar(self.types[key])

    def parse(self, key: str, text: str) -> Any:
        """The value of a command-line option; raises UserError."""
        return self._check(key, text, lambda parser: parser.parse_args([f"--value={text}"]))

    def validate(self, key: str, value: Any) -> Any:
        """A value from YAML or Python, converted to the type of the key; raises UserError."""
        return self._check(key, value, lambda parser: parser.parse_object({"value": value}))

    def _check(self, key: str, given: Any, parse: Callable[..., Any]) -> Any:
        hint = self.types[key]
        try:
            value = parse(_value_parser(hint))["value"]
        except argparse.ArgumentError:
            raise _type_error(key, describe_type(hint), given) from None
        # jsonargparse accepts null for any type, and NaN
        if value is None and type(None) not in get_args(hint):
            raise _type_error(key, describe_type(hint), "nothing")
        items = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, float) and not math.isfinite(item) for item in items):
            raise _type_error(key, "a finite number", given)
        return value

    def load(self, path: Path) -> dict[str, Any]:
        """The values of a YAML file as {"section.name": value}; raises UserError."""
        values: dict[str, Any] = {}
        for section, content in read_yaml(path).items():
            if section not in self.sections and not (isinstance(content, dict) and content):
                self.require_key(str(section), f"{path}: ")
            if not isinstance(content, dict | None):
                raise UserError(f"{path}: {section} must be a section of keys, found {content!r}")
            for name, value in (content or {}).items():
                key = f"{section}.{name}"
                self.require_key(key, f"{path}: ")
                try:
                    values[key] = self.validate(key, value)
                except UserError as error:
                    raise UserError(f"{path}: {error}") from None
        return values

    def require_key(self, key: str, prefix: str = "") -> None:
        """Raises UserError, with the most similar key, for an unknown one."""
        if key not in self.types:
            raise UserError(f"{prefix}no key {key}; did you mean {nearest(key, self.types)}?")

    def build(self, values: dict[str, Any]) -> Any:
        """The config of values by "section.name"; a ValueError of a section becomes UserError."""
        sections: dict[str, dict[str, Any]] = {section: {} for section in self.sections}
        for key, value in values.items():
            section, _, name = key.partition(".")
            sections[section][name] = value
        try:
            return self.config_class(**{s: self.sections[s](**v) for s, v in sections.items()})
        except ValueError as error:
            raise UserError(str(error)) from None


@functools.cache
def _value_parser(hint: Any) -> jsonargparse.ArgumentParser:
    """Converts and validates single values of a type: the caller knows their key for errors."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser


def make_config(config_class: type, values: dict[str, Any]) -> Any:
    """The config of values by "section.name", with defaults for the rest; raises UserError."""
    schema = Schema(config_class)
    for key in values:
        schema.require_key(key)
    return schema.build({key: schema.validate(key, value) for key, value in values.items()})


def load_config(classes: Classes, file: str, name: str) -> Any:
    """The config of a YAML file, a name in configs/ beside `file` or a path; raises UserError."""
    path = find_config(name, Path(file).resolve().parent)
    schema = Schema(class_of(classes, path))
    return schema.build(schema.load(path))


def find_config(name: str, paper: Path) -> Path:
    """The YAML file of that name in PAPER/configs, or at that path; raises UserError."""
    for path in (paper / "configs" / name, Path(name)):
        if path.is_file():
            return path
    shipped = sorted(path.name for path in (paper / "configs").glob("*.yml"))
    raise UserError(f"no config {name}: expected a path or one of {', '.join(shipped)}")


def class_of(classes: Classes, path: Path) -> type:
    """The config class of the model that a YAML file names; raises UserError."""
    return choose_model(classes, model_name(path) if isinstance(classes, dict) else None)[1]


def model_name(path: Path) -> str | None:
    """model.name of a YAML file, or None if it has none that is a string."""
    section = read_yaml(path).get("model")
    name = section.get("name") if isinstance(section, dict) else None
    return name if isinstance(name, str) else None  # `Schema.load` rejects any other type


def choose_model(classes: Classes, model: str | None) -> tuple[str | None, type]:
    """The name and the config class of a model (None: the default); raises UserError."""
    if not isinstance(classes, dict):
        return None, classes
    model = next(iter(classes)) if model is None else model
    if model not in classes:
        raise UserError(f"model.name: expected one of {', '.join(classes)}, found {model}")
    return model, classes[model]


def as_plain(config: Any) -> dict[str, dict[str, Any]]:
    """A config as nested dictionaries of YAML types: tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping in UTF-8, with or without byte order mark; Python tags are refused."""
    try:
        values = yaml.safe_load(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else path
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where} is not valid YAML: {reason}") from None
    if not isinstance(values, dict):
        kind = "nothing" if values is None else f"a {type(values).__name__}"
        raise UserError(f"{path}: expected sections such as `training:`, found {kind}")
    return values


def describe_type(hint: Any) -> str:
    """A type as an error message names it."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (list, tuple):
        return f"a list [...] of {describe_type(get_args(hint)[0])}"
    if type(None) in get_args(hint):
        return " or ".join(map(describe_type, _without_none(hint))) + " or null"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of some names."""
    return difflib.get_close_matches(name, list(names), 1, 0.0)[0]


def _metavar(hint: Any) -> str:
    args = _without_none(hint)
    if get_origin(hint) is Literal:
        return f"{{{','.join(map(str, args))}}}"
    if get_origin(hint) in (list, tuple):
        items = ["..." if item is Ellipsis else _metavar(item) for item in args]
        return f"[{', '.join(items if len(items) > 1 else [*items, '...'])}]"
    return "|".join(map(_metavar, args)) if args else hint.__name__.upper()


def _without_none(hint: Any) -> list[Any]:
    return [part for part in get_args(hint) if part is not type(None)]


def _type_error(key: str, expected: str, given: Any) -> UserError:
    return UserError(f"{key}: expected {expected}, found {str(given)[:80]}")


def _as_yaml(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value or '""'
