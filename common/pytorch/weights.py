"""Reads pretrained weights, .safetensors or .pth, without executing code in them."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import UserError


def read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The content of a .safetensors or .pth file, and the metadata of a .safetensors file.

    A .pth file may hold nested dictionaries, see `state_dict`. Raises UserError for a missing or
    damaged file, and for one with other objects than tensors and plain containers.
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


def metadata_json(metadata: dict[str, str], key: str) -> dict[str, Any]:
    """A JSON dictionary in the metadata of a .safetensors file; empty if there is none."""
    try:
        value = json.loads(metadata.get(key, "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
