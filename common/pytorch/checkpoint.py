"""Checkpoints of networks and optimizers in safetensors, which cannot hold executable code."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common import UserError
from common.hdf5 import compare_shapes
from common.run import Checkpoint, Run


def write(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Writes tensors by name to a safetensors file; header: its metadata."""
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, header)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; raises UserError for any other file."""
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own exceptions besides OSError
        raise UserError(f"{path} is not a readable checkpoint: {error}") from None


@torch.no_grad()
def copy_tensors(target: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Copies saved tensors into those of `target`, in place.

    Raises UserError with the first difference in names or shapes; path: the file, for its message.
    """
    compare_shapes(path, saved, target)
    for name, tensor in target.items():
        tensor.copy_(saved[name])


def load_module(module: nn.Module, path: Path) -> None:
    """Loads the weights of a module, in place; raises UserError as `read` and `copy_tensors`."""
    copy_tensors(module.state_dict(), read(path), path)


def check_finite(module: nn.Module, step: int) -> None:
    """Raises UserError if a weight is NaN or infinite."""
    for name, value in module.state_dict().items():
        if not value.isfinite().all():
            raise UserError(f"{name} became NaN or infinite at step {step}: lower training.lr")


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str = "") -> dict[str, Tensor]:
    """The state of an optimizer as tensors named PREFIX + "PARAMETER_INDEX.NAME"."""
    return {
        f"{prefix}{i}.{name}": value
        for i, moments in optimizer.state_dict()["state"].items()
        for name, value in moments.items()
        if value is not None
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor], path: Path, prefix: str = ""
) -> None:
    """Restores the state from `optimizer_tensors`; ignores names without the prefix.

    Raises UserError if the state is of another model or optimizer; path: the file, for its message.
    """
    groups = optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for key, value in saved.items():
            if not key.startswith(prefix):
                continue
            i, name = key.removeprefix(prefix).split(".")
            parameter = parameters[int(i)]
            if value.ndim:  # all but the number of steps have the shape of the parameter
                if value.shape != parameter.shape:
                    raise ValueError
                # Fused optimizers index raw memory, so moments need the parameter's memory layout
                # (channels last, for example), which safetensors does not keep.
                value = torch.empty_like(parameter).copy_(value)
            state.setdefault(int(i), {})[name] = value
    except (ValueError, IndexError):
        raise UserError(f"{path} is of another model or optimizer") from None
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def save(
    run: Run,
    step: int,
    module: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    tensors: Mapping[str, Tensor],
    header: dict[str, str] | None = None,
    **progress: int,
) -> None:
    """Saves a checkpoint of weights, optimizers and other tensors of the training state.

    header: metadata of the weights file; progress: JSON values for `Checkpoint.progress`. Raises
    UserError, and keeps the previous checkpoint, if a weight is NaN or infinite.
    """
    check_finite(module, step)
    state = dict(tensors)
    for name, optimizer in optimizers.items():
        state |= optimizer_tensors(optimizer, f"{name}.")
    run.checkpoint(
        step,
        {
            "model.safetensors": lambda path: write(path, module.state_dict(), header),
            "state.safetensors": lambda path: write(path, state),
        },
        **progress,
    )


def restore(
    run: Run,
    module: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    tensors: Mapping[str, Tensor],
) -> Checkpoint | None:
    """Loads the arguments of `save` in place from the latest checkpoint; None without one.

    Deletes later lines of metrics.jsonl. Raises UserError if the checkpoint is of another model.
    """
    latest = run.latest_checkpoint()
    if latest is None:
        run.rewind()
        return None
    load_module(module, latest.path / "model.safetensors")
    path = latest.path / "state.safetensors"
    saved = read(path)
    prefixes = tuple(f"{name}." for name in optimizers)
    others = {name: value for name, value in saved.items() if not name.startswith(prefixes)}
    copy_tensors(tensors, others, path)
    for name, optimizer in optimizers.items():
        load_optimizer(optimizer, saved, path, f"{name}.")
    run.rewind(latest.step)
    return latest
