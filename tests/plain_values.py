"""Checks that a function returns the plain Python values of its annotation."""

import json
import types
import typing

import numpy as np


def assert_plain(function, *args, **keywords):
    """Calls a function: its result fits the annotation, and what is not an array goes into JSON."""
    hint = typing.get_type_hints(function)["return"]
    value = function(*args, **keywords)
    assert fits(value, hint), f"{value!r} is not {hint}"
    json.dumps(value, default=np.ndarray.tolist)
    return value


def fits(value, hint):
    """Whether a value, and everything in it, has the annotated type exactly: no NumPy scalars."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in args)
    if hint is None or hint is type(None):
        return value is None
    if hint is np.ndarray:
        return isinstance(value, np.ndarray)
    if (origin or hint) is dict:
        key, item = args or (typing.Any, typing.Any)
        pairs = value.items() if type(value) is dict else [(None, None)]
        return type(value) is dict and all(fits(k, key) and fits(v, item) for k, v in pairs)
    if origin is tuple and args[-1] is not Ellipsis:
        return type(value) is tuple and all(map(fits, value, args)) and len(value) == len(args)
    if (origin or hint) in (list, tuple):
        return type(value) is (origin or hint) and all(fits(v, args[0]) for v in value)
    if hint is typing.Any:
        return is_plain(value)
    return type(value) is hint or (hint is float and type(value) is int)


def is_plain(value):
    """Whether a value consists of Python's own types and arrays."""
    if type(value) is dict:
        return all(is_plain(k) and is_plain(v) for k, v in value.items())
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str, np.ndarray)
