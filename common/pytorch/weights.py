"""Reads pretrained weights, .safetensors or .pth, without executing code in them."""

import argparse
import json
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import UserError


class _NumberType:
    """Stands in for numpy.dtype, whose own unpickling trusts the file: only a name and an order."""

    def __init__(self, code: str, *options: bool):
        self.code = code
        self.byte_order = "<"

    def __setstate__(self, state: tuple) -> None:
        self.byte_order = state[1]


def _number(number_type: _NumberType, data: bytes) -> float | int:
    """Stands in for NumPy's function that makes a scalar: a plain number of its bytes."""
    formats = {"f8": "d", "f4": "f", "i8": "q", "i4": "i"}
    return struct.unpack(number_type.byte_order + formats[number_type.code], data)[0]


# What whole checkpoints of the papers' authors hold besides tensors and containers: the command
# line (DINO's args) and, in the state of an optimizer, rates that are NumPy scalars. Nothing else
# is allowed; none of these runs code of the file.
_ALLOWED = [
    argparse.Namespace,
    (_NumberType, "numpy.dtype"),
    *((_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The content of a .safetensors or .pth file, and the metadata of a .safetensors file.

    A .pth file may hold nested dictionaries, see `state_dict`. Raises UserError for a missing or
    damaged file, and for one with other objects than tensors, plain containers, an
    argparse.Namespace and NumPy scalars, which become plain numbers.
    """
    if not path.is_file():
        raise UserError(
            f"model.weights {path} does not exist: expected a .safetensors or .pth file"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open
            from safetensors.torch import load_file

            with safe_open(path, "pt") as file:
                return load_file(path), file.metadata() or {}
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True), {}
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors and was not loaded, as it could run any code: save "
            "only its state_dict"
        ) from None
    except Exception as error:  # a damaged file makes the readers raise nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a readable weights file: {reason}") from None


def state_dict(content: object, path: Path, keys: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors by name in the content of a file.

    keys: of nested dictionaries to enter if they exist, such as "state_dict", in order. Raises
    UserError if the file contains no tensors.
    """
    for key in keys:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{path} holds no weights by name: expected a state_dict")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def strip_prefixes(
    saved: Mapping[str, Tensor], prefixes: str, path: Path | str
) -> dict[str, Tensor]:
    """The tensors by names without their prefixes; prefixes: a regular expression of one.

    Raises UserError if two names become one, as in a file of two networks.
    """
    stripped: dict[str, Tensor] = {}
    for name, value in saved.items():
        short = re.sub(rf"^({prefixes})+", "", name)
        if short in stripped:
            raise UserError(f"{path} holds two networks: {short} is there twice, such as {name}")
        stripped[short] = value
    return stripped


def check(
    saved: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    path: Path | str,
    title: str,
    ignored: str = "",
) -> list[str]:
    """Raises UserError with the difference unless the tensors of a file are all those expected.

    title: what they are for, in messages; ignored: a regular expression of the beginnings of other
    names that the file may have, as of a classifier. Returns the names that it matches. Counters of
    batch norm, which old files lack and nothing uses, may be missing.
    """
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    if missing := sorted(needed - saved.keys()):
        raise UserError(
            f"{path} lacks {len(missing)} of the {len(needed)} weights of {title}, such as "
            f"{missing[0]}; it has {', '.join(sorted(saved)[:3])}, ..."
        )
    others = sorted(saved.keys() - expected.keys())
    known = [name for name in others if ignored and re.match(ignored, name)]
    if unknown := sorted(set(others) - set(known)):
        raise UserError(
            f"{path} is of another model: it has {len(unknown)} weights that {title} lacks, such "
            f"as {unknown[0]}"
        )
    for name in sorted(saved.keys() & expected.keys()):
        if saved[name].shape != expected[name].shape:
            raise UserError(
                f"{path} is of another model: {name} is {tuple(saved[name].shape)}, {title} "
                f"expects {tuple(expected[name].shape)}"
            )
        if not saved[name].isfinite().all():
            raise UserError(f"{path}: {name} is NaN or infinite")
    return known


def metadata_json(metadata: dict[str, str], key: str) -> dict[str, Any]:
    """A JSON dictionary in the metadata of a .safetensors file; empty if there is none."""
    try:
        value = json.loads(metadata.get(key, "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
